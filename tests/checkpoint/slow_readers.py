"""How quantised weights are packed and read, from the definitions alone: one code at a time, in pure Python."""

import numpy as np


def words_packed(codes, bits):
    """Return rows of codes in 32-bit words, the first code in the lowest bits; a code may lie across two words."""
    rows = []
    for row in codes.tolist():
        number = sum(code << (bits * place) for place, code in enumerate(row))
        n_words = -(-len(row) * bits // 32)
        rows.append([number >> (32 * word) & 0xFFFFFFFF for word in range(n_words)])
    return np.array(rows, np.uint32).view(np.int32)


def gptq_packed(codes, zeros, bits, zero_offset):
    """Return GPTQ's words: of the codes down the inputs, of the zero points less the offset along the outputs."""
    stored = (zeros - zero_offset) % 2**bits
    return {"qweight": words_packed(codes.T, bits).T.copy(), "qzeros": words_packed(stored, bits)}


def gptq_weights(codes, zeros, scale, groups):
    """Return the weights, outputs first: ``(code - zero) scale`` of the group of the input, in float32."""
    n_inputs, n_outputs = codes.shape
    weights = np.empty((n_outputs, n_inputs), np.float32)
    for i in range(n_inputs):
        for j in range(n_outputs):
            difference = np.float32(int(codes[i, j]) - int(zeros[groups[i], j]))
            weights[j, i] = difference * np.float32(scale[groups[i], j])
    return weights


def four_bit_weights(stored, table, scale, block, shape):
    """Return bitsandbytes' weights: the first of two codes in the higher bits of a byte, ``table[code] scale``."""
    weights = []
    for byte in stored.reshape(-1).view(np.uint8).tolist():
        for code in (byte >> 4, byte & 15):
            weights.append(np.float32(table[code]) * np.float32(scale[len(weights) // block]))
    return np.array(weights[: int(np.prod(shape))], np.float32).reshape(shape)
