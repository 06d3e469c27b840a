"""Residual addition and LayerNorm."""

import torch


def add_layer_norm(x, residual, weight, bias, eps):
    """LayerNorm(x + residual) * weight + bias over the last dimension; sums in float32 (float64 for float64)."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    total, weight, bias = x.to(wide) + residual.to(wide), weight.to(wide), bias.to(wide)
    return torch.nn.functional.layer_norm(total, weight.shape, weight, bias, eps).to(x.dtype)


def add_layer_norm_backward(grad, x, residual, weight, bias, eps):
    """Gradients of x (the residual's is the same), weight and bias; can be differentiated again."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    grad, total = grad.to(wide), x.to(wide) + residual.to(wide)
    centred = total - total.mean(dim=-1, keepdim=True)
    inverse_std = (centred.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
    normed = centred * inverse_std
    scaled = grad * weight.to(wide)
    projected = scaled.mean(dim=-1, keepdim=True) + normed * (scaled * normed).mean(dim=-1, keepdim=True)
    grad_x = inverse_std * (scaled - projected)
    return grad_x.to(x.dtype), (grad * normed).sum(dim=0).to(weight.dtype), grad.sum(dim=0).to(bias.dtype)
