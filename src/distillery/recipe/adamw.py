"""AdamW (Loshchilov and Hutter, ICLR 2019): Adam with weight decay apart from the gradient, scaled by the rate."""

from __future__ import annotations

from distillery.recipe.adam import Adam


class AdamW(Adam):
    """torch.optim.AdamW."""

    kind = "AdamW"
