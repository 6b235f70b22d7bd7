"""PyTorch Geometric"""

import torch
import torch_geometric
from torch import nn
from torch_geometric import nn as gnn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.utils import add_self_loops, degree, scatter, softmax, to_dense_adj, to_dense_batch, to_undirected


def graphs(count=12):
    generator = torch.Generator().manual_seed(3)
    out = []
    for i in range(count):
        nodes = 5 + i % 4
        edges = torch.randint(nodes, (2, 3 * nodes), generator=generator)
        x = torch.randn(nodes, 6, generator=generator)
        out.append(Data(x=x, edge_index=to_undirected(edges, num_nodes=nodes), y=torch.tensor([i % 3])))
    return out


class Net(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.one, self.two, self.head = conv(6, 8), conv(8, 8), nn.Linear(8, 3)

    def forward(self, data):
        x = self.one(data.x, data.edge_index).relu()
        x = self.two(x, data.edge_index)
        return self.head(gnn.global_mean_pool(x, data.batch))


CONVOLUTIONS = {
    "GCN": gnn.GCNConv,
    "SAGE": gnn.SAGEConv,
    "GAT": lambda a, b: gnn.GATConv(a, b, heads=2, concat=False),
    "GIN": lambda a, b: gnn.GINConv(nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, b))),
    "Transformer": lambda a, b: gnn.TransformerConv(a, b, heads=2, concat=False),
}


def check_graph_classification(device):
    """GCN, GraphSAGE, GAT, GIN, TransformerConv on batches of graphs: two epochs each"""
    out = {}
    for name, conv in CONVOLUTIONS.items():
        torch_geometric.seed_everything(3)
        net = Net(conv).to(device)
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        losses = []
        for _ in range(2):
            for data in DataLoader(graphs(), 5):
                data = data.to(device)
                loss = nn.functional.cross_entropy(net(data), data.y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
        out[name] = [torch.stack(losses), net.state_dict()]
    return out


def check_node_classification(device):
    """node classification with a mask, full batch"""
    torch_geometric.seed_everything(3)
    data = Batch.from_data_list(graphs()).to(device)
    conv = gnn.GCNConv(6, 3).to(device)
    known = torch.arange(data.num_nodes, device=device) % 2 == 0
    loss = nn.functional.cross_entropy(
        conv(data.x, data.edge_index)[known], torch.arange(data.num_nodes, device=device)[known] % 3
    )
    loss.backward()
    return [loss, [p.grad for p in conv.parameters()]]


def check_utilities(device):
    """scatter, softmax per node, degree, dense batches, pooling, top-k pooling, normalisation"""
    data = Batch.from_data_list(graphs(4)).to(device)
    source, target = data.edge_index
    torch_geometric.seed_everything(3)
    pool = gnn.TopKPooling(6, ratio=0.5).to(device)
    out = [scatter(data.x[source], target, reduce=how) for how in ("sum", "mean", "max")]
    out += [softmax(data.x[source], target), degree(target), to_dense_adj(data.edge_index, data.batch)]
    out += [
        *to_dense_batch(data.x, data.batch),
        add_self_loops(data.edge_index)[0],
        pool(data.x, data.edge_index, batch=data.batch)[:2],
    ]
    out += [gnn.GraphNorm(6).to(device)(data.x, data.batch), gnn.global_max_pool(data.x, data.batch)]
    return out
