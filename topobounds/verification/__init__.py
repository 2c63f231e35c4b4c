"""Any claim about the overlap and the diagram, printed or ours, tested on samples and on real weights."""

from topobounds.verification.claims import CLAIMS
from topobounds.verification.judging import Verdict
from topobounds.verification.verify import verdicts_on_file, verify, verify_file
from topobounds.verification.witnesses import replay, write_witnesses

__all__ = ["CLAIMS", "Verdict", "replay", "verdicts_on_file", "verify", "verify_file", "write_witnesses"]
