"""IMP and T-IMP experiments: a plan in, a run folder of levels out."""
