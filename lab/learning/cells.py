"""A kind and its sizes -> a recurrent layer, its weights begun so that all kinds learn well."""

from collections.abc import Callable

import torch
from torch import nn

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def recurrent_cell(family: str, inputs: int, units: int) -> nn.RNNBase:
    """One layer that reads in one direction, its weights begun as Keras does, which serves all three kinds well.

    Orthogonal from state to state (Saxe et al. 2014, arXiv:1312.6120), by Glorot from the inputs, an LSTM's forget
    gate open (Jozefowicz et al. 2015). torch's own start lets the gradient of an Elman network vanish at once.
    """
    cell = CELLS[family](inputs, units, batch_first=True)
    for name, weights in cell.named_parameters():
        if "weight_hh" in name:
            for gate in torch.split(weights.data, units):
                nn.init.orthogonal_(gate)
        elif "weight_ih" in name:
            nn.init.xavier_uniform_(weights)
        else:
            nn.init.zeros_(weights)
            if family == "lstm" and "bias_ih" in name:
                weights.data[units : 2 * units] = 1  # torch's order of gates: input, forget, cell, output
    return cell
