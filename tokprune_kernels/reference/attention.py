"""Attention within each sequence of a packed batch, and the importance of its tokens."""

from itertools import pairwise

import torch


def attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None):
    """Context (T, N_h, d) and importance (T,) of A_h = softmax(scale QK^T + key_bias): the importance (LTP) of token i is
    s_i = 1/(N_h D) sum_h sum_q row_weights_q A_h[q, i]. Without key_bias it is 0, without row_weights they are 1.
    """
    contexts, scores = [_wide(v[:0])], [_wide(q[:0, 0, 0])]
    for sequence, rows in enumerate(_sequences(cu_seqlens)):
        probabilities = _probabilities(q[rows], k[rows], scale, None if key_bias is None else key_bias[rows])
        denominator = rows.stop - rows.start if denominators is None else denominators[sequence]
        contexts.append(torch.einsum("hqk,khd->qhd", probabilities, _wide(v[rows])))
        counted = probabilities if row_weights is None else probabilities * row_weights[rows, None]
        scores.append(counted.sum(dim=(0, 1)) / (q.shape[1] * denominator))
    return torch.cat(contexts).to(q.dtype), torch.cat(scores)


def varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale):
    """The context of `attn_importance` without the importance."""
    return attn_importance(q, k, v, cu_seqlens, max_seqlen, scale)[0]


def attn_importance_backward(
    grad_context, grad_importance, q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None
):
    """Gradients of q, k and v, (T, N_h, d), and of key_bias and row_weights, (T,), from those of context and importance.

    With P the probabilities, r = row_weights (1 if None) and dP[q, i] = grad_context_q . v_i + r_q grad_importance_i/(N_h D):
    dB = P * (dP - rowsum(P * dP)) is the gradient of the biased scores, so q gets scale dB K, k scale dB^T Q, key_bias the
    column sums of dB; v gets P^T grad_context, row_weights P grad_importance/(N_h D). Plain torch throughout, so it can be
    differentiated again.
    """
    grads = [(_wide(q[:0]), _wide(k[:0]), _wide(v[:0]), _wide(q[:0, 0, 0]), _wide(q[:0, 0, 0]))]
    for sequence, rows in enumerate(_sequences(cu_seqlens)):
        probabilities = _probabilities(q[rows], k[rows], scale, None if key_bias is None else key_bias[rows])
        denominator = rows.stop - rows.start if denominators is None else denominators[sequence]
        grad_rows = _wide(grad_context[rows])
        grad_mean = _wide(grad_importance[rows]) / (q.shape[1] * denominator)
        weighted = grad_mean if row_weights is None else row_weights[rows, None] * grad_mean
        grad_p = torch.einsum("qhd,khd->hqk", grad_rows, _wide(v[rows])) + weighted
        grad_b = probabilities * (grad_p - (probabilities * grad_p).sum(dim=-1, keepdim=True))
        grads.append(
            (
                torch.einsum("hqk,khd->qhd", grad_b, _wide(k[rows])) * scale,
                torch.einsum("hqk,qhd->khd", grad_b, _wide(q[rows])) * scale,
                torch.einsum("hqk,qhd->khd", probabilities, grad_rows),
                grad_b.sum(dim=(0, 1)),
                torch.einsum("hqk,k->q", probabilities, grad_mean),
            )
        )
    *heads, grad_key_bias, grad_row_weights = (torch.cat(parts) for parts in zip(*grads, strict=True))
    return *(grad.to(q.dtype) for grad in heads), grad_key_bias, grad_row_weights


def _sequences(cu_seqlens):
    """Row ranges of the sequences, empty ones included."""
    return [slice(start, end) for start, end in pairwise(cu_seqlens.tolist())]


def _probabilities(q, k, scale, key_bias=None):
    """(N_h, n, n) attention probabilities of one sequence; key_bias (n,) is added to the scores of its keys."""
    scores = torch.einsum("qhd,khd->hqk", _wide(q), _wide(k)).mul(scale)
    if key_bias is not None:
        # What all keys have in common changes nothing; beside -1e4 everywhere float32 would keep three digits of a score.
        scores = scores + key_bias.log_softmax(dim=0)
    return scores.softmax(dim=-1)


def _wide(x):
    """x in the dtype that sums are taken in: float64 stays, everything else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()


def square_roots(cu_seqlens):
    """(B,) float32 denominators: the root of each sequence's number of rows, 1 for an empty one, which has no scores but needs a D > 0."""
    return cu_seqlens.diff().clamp(min=1).float().sqrt()
