"""nn.RNN, nn.LSTM and nn.GRU on the CPU, in the steps that PyTorch takes on CUDA without cuDNN (aten's RNN.cpp).

The CPU multiplies the whole sequence by the input's weights at once; CUDA goes step by step, so that gradients of
weights are summed in another order. The fused cells of CUDA are written out.
"""

import contextlib
from unittest import mock

import torch
from torch.nn.functional import linear

VF = torch.nn.modules.rnn._VF


def lstm_cell(x, hidden, params):
    h, c = hidden
    w_ih, w_hh, b_ih, b_hh, w_hr = params
    in_gates, hidden_gates = x @ w_ih.t(), h @ w_hh.t()
    gates = (hidden_gates + b_hh) + (in_gates + b_ih) if b_ih is not None else hidden_gates + in_gates
    i, f, g, o = gates.unsafe_chunk(4, 1)
    c = (f.sigmoid() * c) + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if w_hr is None else h @ w_hr.t()), c


def gru_cell(x, hidden, params):
    w_ih, w_hh, b_ih, b_hh, _ = params
    of_input, of_hidden = x @ w_ih.t(), hidden @ w_hh.t()
    if b_ih is not None:
        of_input, of_hidden = of_input + b_ih, of_hidden + b_hh
    i, h = of_input.unsafe_chunk(3, 1), of_hidden.unsafe_chunk(3, 1)
    reset, update = (h[0] + i[0]).sigmoid(), (h[1] + i[1]).sigmoid()
    fresh = (i[2] + h[2] * reset).tanh()
    return (hidden - fresh) * update + fresh


def simple_cell(nonlinearity):
    def cell(x, hidden, params):
        w_ih, w_hh, b_ih, b_hh, _ = params
        return nonlinearity(linear(hidden, w_hh, b_hh).add_(linear(x, w_ih, b_ih)))

    return cell


def layer(cell, steps, hidden, params):
    outputs = []
    for x in steps:
        hidden = cell(x, hidden, params)
        outputs.append(hidden[0] if isinstance(hidden, tuple) else hidden)
    return outputs, hidden


def both_ways(cell, steps, hiddens, params):
    forth, last = layer(cell, steps, hiddens[0], params[0])
    if len(hiddens) == 1:
        return torch.stack(forth, 0), [last]
    back, first = layer(cell, steps[::-1], hiddens[1], params[1])
    return torch.cat((torch.stack(forth, 0), torch.stack(back[::-1], 0)), -1), [last, first]


def run(cell, x, hiddens, weights, has_biases, layers, dropout, train, bidirectional, batch_first, projects=False):
    """`hiddens`: what cell() takes, for each layer and direction."""
    count = 2 + 2 * has_biases + projects
    params = []
    for at in range(0, len(weights), count):
        w = list(weights[at : at + count])
        params.append((*w[:2], *(w[2:4] if has_biases else (None, None)), w[-1] if projects else None))
    ways = 2 if bidirectional else 1
    x = x.transpose(0, 1) if batch_first else x
    lasts = []
    for at in range(layers):
        span = slice(at * ways, (at + 1) * ways)
        x, ends = both_ways(cell, x.unbind(0), hiddens[span], params[span])
        lasts += ends
        if train and 0 < dropout < 1 and at + 1 < layers:
            x = torch.native_dropout(x, dropout, True)[0]
    return x.transpose(0, 1) if batch_first else x, lasts


def lstm(x, hx, weights, *how):
    projects = hx[0].size(2) != hx[1].size(2)
    out, lasts = run(lstm_cell, x, list(zip(hx[0].unbind(0), hx[1].unbind(0))), weights, *how, projects=projects)
    return out, torch.stack([h for h, _ in lasts], 0), torch.stack([c for _, c in lasts], 0)


def one_state(cell):
    def function(x, hx, weights, *how):
        out, lasts = run(cell, x, list(hx.unbind(0)), weights, *how)
        return out, torch.stack(lasts, 0)

    return function


@contextlib.contextmanager
def as_on_cuda():
    """Within: the functions that these modules call. Packed sequences are not among what module_db has."""
    ways = {
        "lstm": lstm,
        "gru": one_state(gru_cell),
        "rnn_tanh": one_state(simple_cell(torch.tanh)),
        "rnn_relu": one_state(simple_cell(torch.relu)),
    }
    with mock.patch.multiple(VF, create=True, **ways):
        yield
