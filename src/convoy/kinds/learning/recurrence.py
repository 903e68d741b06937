"""An Elman layer: the plainest recurrence, h = tanh(W x + U h + b), without any gate."""

import torch
from torch import Tensor, nn

Layer = type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]
# A sigmoid of this is 1, and of its negative 0, in float32: the gates of the GRU below stand still.
OPEN = 1e4


class ElmanLayer(nn.RNN):
    """Elman 1990 (doi.org/10.1207/s15516709cog1402_1), as torch's nn.RNN; in eval mode it runs as a GRU.

    torch's ONNX exporter knows LSTM and GRU, not RNN. A GRU whose reset gate is always 1 and whose update gate is
    always 0 computes h = tanh(W x + b + U h + c), which is an Elman layer: the answers are the same.
    """

    def forward(self, inputs: Tensor, initial: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(batch, steps, size) -> the states after each step, (batch, steps, units * directions), and the last."""
        if self.training:
            states, last = super().forward(inputs, initial)
            return states, last
        assert self.num_layers == 1, "one layer is all that a network here has"
        directions = 2 if self.bidirectional else 1
        if initial is None:
            initial = inputs.new_zeros(directions, len(inputs), self.hidden_size)
        weights = [weight for suffix in ("", "_reverse")[:directions] for weight in self._gru_weights(suffix)]
        states, last = torch.gru(inputs, initial, weights, True, 1, 0.0, False, self.bidirectional, True)
        return states, last

    def _gru_weights(self, suffix: str) -> list[Tensor]:
        """The weights of the GRU, its gates in the order reset, update, new."""
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        inputs, states, bias, state_bias = (getattr(self, name + suffix) for name in names)
        still = torch.zeros_like(inputs), torch.zeros_like(states)
        reset, update = torch.full_like(bias, OPEN), torch.full_like(bias, -OPEN)
        none = torch.zeros_like(bias)
        return [
            torch.cat([still[0], still[0], inputs]),
            torch.cat([still[1], still[1], states]),
            torch.cat([reset, update, bias]),
            torch.cat([none, none, state_bias]),
        ]
