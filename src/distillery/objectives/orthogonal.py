"""Maps from an unconstrained matrix to one with orthonormal columns, and the projector built on them.

All take a tall matrix X (n x k, n >= k) and give W (n x k) with W'W = I; wide matrices go through the transpose. They
match torch.nn.utils.parametrizations.orthogonal, but use no host synchronisation and no loop over columns.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

DEVICE_SQUARINGS = 8


def householder(x: Tensor, signs: Tensor | None = None) -> Tensor:
    """First k columns of the product of the reflections I - 2 u u' / (u'u), times signs (k,).

    u_j is the unit-lower-triangular column j of X. The product of all k is I - V T V' with T the inverse of an upper
    triangular matrix (compact WY form), so one triangular solve does it. Without `signs` they are the diagonal of X
    truncated to integers, as in torch: there weight decay shrinks a diagonal of +-1 to 0, and W with it.
    """
    if signs is None:
        signs = x.detach().diagonal().trunc()
    eye = torch.eye(*x.shape, dtype=x.dtype, device=x.device)
    v = x.tril(-1) + eye
    gram = v.T @ v
    t_inverse = gram.triu() - torch.diag(gram.diagonal() / 2)
    columns = eye - v @ torch.linalg.solve_triangular(t_inverse, v[: x.shape[1]].T, upper=True)
    return columns * signs


def _skew(x: Tensor) -> Tensor:
    """(n, k) -> (n, n): the lower triangle of X, padded with zero columns, minus its transpose."""
    n, k = x.shape
    lower = torch.cat([x.tril(-1), x.new_zeros(n, n - k)], dim=1)
    return lower - lower.T


def expm(a: Tensor) -> Tensor:
    """Matrix exponential of (n, n) by scaling, a Taylor polynomial of degree 12, and squaring; no host synchronisation.

    On a device it always runs the DEVICE_SQUARINGS that a column-sum norm of 76 needs, and keeps those that this matrix
    needs: torch.matrix_exp asks the host, which a captured graph cannot. A larger matrix counts scaled down there, so
    that of a skew-symmetric one the result is orthogonal all the same. A projector's matrix starts at zero, and weight
    decay draws it back there. Each squaring is eight kernels of a training step, two of them products for the gradient.
    """
    norm = a.detach().abs().sum(0).amax()
    squarings = (norm / 0.3).clamp(min=1).log2().ceil()
    a = a * torch.exp2(-squarings)
    eye = torch.eye(len(a), dtype=a.dtype, device=a.device)
    a2 = a @ a
    a3 = a2 @ a
    c = [1 / math.factorial(i) for i in range(13)]
    result = c[12] * a3
    for i in (9, 6, 3, 0):
        result = c[i] * eye + c[i + 1] * a + c[i + 2] * a2 + (result if i == 9 else a3 @ result)
    for i in range(int(squarings.nan_to_num(posinf=0)) if a.is_cpu else DEVICE_SQUARINGS):
        result = torch.where(i < squarings, result @ result, result)
    return result


def matrix_exp(x: Tensor) -> Tensor:
    """First k columns of the exponential of the skew-symmetric matrix of X.

    Of a tall X, with the square part S - S' on top and B below, they stay in the span of the first k axes and of B's
    columns: as coordinates (Y, Z) of Y on top and B Z below they move by (S - S') Y - B'B Z and by Y. So a matrix of
    size 2k is enough, 384 and not 3,024 for DeiT-Ti and RegNetY-160; `scale` balances its corners.
    """
    n, k = x.shape
    if n <= 2 * k:
        return expm(_skew(x))[:, :k]
    top, below = _skew(x[:k]), x[k:]
    gram = below.T @ below
    scale = gram.detach().abs().sum(0).amax().sqrt().clamp(min=1.0)
    eye = torch.eye(k, dtype=x.dtype, device=x.device)
    rows = torch.cat([top, -gram / scale], 1), torch.cat([scale * eye, torch.zeros_like(eye)], 1)
    y, z = expm(torch.cat(rows))[:, :k].chunk(2)
    return torch.cat([y, below @ (z / scale)])


def cayley(x: Tensor) -> Tensor:
    """First k columns of (I - A/2)^-1 (I + A/2), A the skew-symmetric matrix of X. The inverse always exists."""
    half = _skew(x) / 2
    eye = torch.eye(len(x), dtype=x.dtype, device=x.device)
    columns: Tensor = torch.linalg.solve_ex(eye - half, (eye + half)[:, : x.shape[1]])[0]
    return columns


Map = Literal["auto", "householder", "matrix_exp", "cayley"]


def orthogonal_weight(x: Tensor, kind: Map = "auto", base: Tensor | None = None, signs: Tensor | None = None) -> Tensor:
    """Semi-orthogonal matrix of the shape of X: W'W = I if tall or square, WW' = I if wide.

    kind: "auto" is torch's default, householder for non-square and the exponential for square matrices. base: an
    orthogonal (n, n) matrix from the left, n the longer side (trivialisation: optimisation runs around a point that is
    not the identity).
    """
    if x.shape[0] < x.shape[1]:
        return orthogonal_weight(x.T, kind, base, signs).T
    if kind == "auto":
        kind = "matrix_exp" if x.shape[0] == x.shape[1] else "householder"
    free = x.double()  # in float32 the product of n reflections or 12 squarings loses a digit of orthogonality
    weight = (
        householder(free, signs) if kind == "householder" else {"matrix_exp": matrix_exp, "cayley": cayley}[kind](free)
    )
    return (weight if base is None else base.double() @ weight).to(x.dtype)


class OrthogonalProjector(nn.Module):
    """Bias-free linear map (B, inputs) -> (B, outputs) whose weight stays semi-orthogonal whatever the optimiser does.

    The only parameter is the free matrix, at zero to start with; the base point (an orthogonal completion of the start)
    and the householder signs are buffers. So weight decay only draws the weight back to where it began. In the released
    set-up the signs are the parameter's diagonal, and one decayed step makes the projection exactly zero.
    """

    base: Tensor
    signs: Tensor

    def __init__(self, inputs: int, outputs: int, kind: Map = "auto") -> None:
        super().__init__()
        self.kind = kind
        n, k = max(inputs, outputs), min(inputs, outputs)
        self.wide = outputs < inputs
        self.free = nn.Parameter(torch.zeros(n, k))
        start, triangle = torch.linalg.qr(torch.randn(n, k, dtype=torch.float64), mode="complete")
        start[:, :k] *= torch.where(triangle.diagonal() < 0, -1.0, 1.0)  # uniform over the semi-orthogonal matrices
        self.register_buffer("base", start.to(self.free.dtype))
        self.register_buffer("signs", -torch.ones(k))  # reflections by unit vectors start at -1

    def weight(self) -> Tensor:
        """The (outputs, inputs) matrix."""
        return orthogonal_weight(self.free.T if self.wide else self.free, self.kind, self.base, self.signs)

    def forward(self, x: Tensor) -> Tensor:
        """Project (B, inputs) features."""
        return x @ self.weight().T
