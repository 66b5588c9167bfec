def _todo(*a, **k):
    raise NotImplementedError


Trainer = evaluate = sgd = _todo
