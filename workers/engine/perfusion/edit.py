"""The gated rank-one edit of a cross-attention projection, for any number of concepts at once.

Source: Tewel et al. 2023, "Key-Locked Rank One Editing for Text-to-Image Personalization" (Perfusion, arXiv
2305.01644), Eq. (3) for one concept and its appendix B for several; Meng et al. 2022 (ROME) for the ungated form.
Dimensions:  B samples, N token positions, J concepts of a sample, D encoder width, O projection width (all layers)
Symbols:     e   encodings (B, N, D)                M      inverse_covariance (D, D), the metric C^-1
             W   the frozen projection (O, D)        W e    projected (B, N, O)
             i*  target_inputs (B, J, D)             W i*   projected_targets (B, J, O)
             o*  target_outputs (B, J, O)            beta   gate_bias (B, J);  tau  gate_temperature (B, J)

    G = I' M I                                      Gram matrix of the concepts in the metric M
    e_perp = e - I G^-1 I' M e                      what is left of e beside the concepts
    r_j = i_j' M e / (i_j' M i_j)                   alignment: 1 where e is i_j, 0 where M-orthogonal to it
    g_j = sigmoid((r_j - beta_j) / tau_j)
    h(e) = W e_perp + sum_j g_j o_j  =  W e - sum_j c_j W i_j + sum_j g_j o_j,   c = G^-1 I' M e

The right-hand form costs two small products per projection: r, c and g are shared by all layers. With one concept c = r
and this is Eq. (3). A sample with fewer than J concepts pads ``target_inputs`` and
``target_outputs`` with zero rows, which contribute exact zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor


def edit_coefficients(
    encodings: Tensor, target_inputs: Tensor, inverse_covariance: Tensor, gate_bias: Tensor, gate_temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the amount c of each concept to take out and its gate g, both (B, N, J), for every token position."""
    whitened = target_inputs @ inverse_covariance  # (B, J, D), M is symmetric
    similarity = encodings @ whitened.mT  # (B, N, J), i_j' M e
    gram = target_inputs @ whitened.mT  # (B, J, J)
    padding = gram.diagonal(dim1=-2, dim2=-1) == 0  # (B, J)
    gram = gram + torch.diag_embed(padding.to(gram.dtype))
    removal = torch.linalg.solve(gram, similarity.mT).mT  # (B, N, J)
    energy = gram.diagonal(dim1=-2, dim2=-1)  # (B, J)
    alignment = similarity / energy[:, None]  # (B, N, J)
    gate = torch.sigmoid((alignment - gate_bias[:, None]) / gate_temperature[:, None])  # (B, N, J)
    return removal, gate


def apply_edit(
    projected: Tensor, removal: Tensor, gate: Tensor, projected_targets: Tensor, target_outputs: Tensor
) -> Tensor:
    """Turn W e (B, N, O) into h(e) (B, N, O)."""
    return projected - removal @ projected_targets + gate @ target_outputs  # (B, N, O)


def target_cosines(target_inputs: Tensor, inverse_covariance: Tensor) -> Tensor:
    """Return the cosines (J, J) between the target inputs (J, D) of one prompt's concepts, in the metric M."""
    gram = target_inputs @ inverse_covariance @ target_inputs.mT  # (J, J)
    norm = gram.diagonal().sqrt()  # (J,)
    return gram / (norm[:, None] * norm[None, :])
