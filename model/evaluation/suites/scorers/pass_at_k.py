"""pass@k: the probability that one of k answers is right, estimated from n answers (arXiv 2107.03374, equation 1)."""

from math import comb


def pass_at_k(right: int, answers: int, k: int, *, is_greedy: bool = False) -> float | None:
    """Estimate pass@k of one problem without bias: 1 - C(n - c, k) / C(n, k).

    None where fewer than k answers were drawn: they cannot tell. A greedy answer is the same however often it is
    given, so any number of them is right or wrong at every k.
    """
    if not 0 <= right <= answers or k < 1:
        raise ValueError(f"pass@{k} of {right} right among {answers} answers: k is at least 1, right at most answers")
    if answers == 0:
        return None
    if is_greedy:
        return float(right > 0)
    return None if answers < k else 1 - comb(answers - right, k) / comb(answers, k)
