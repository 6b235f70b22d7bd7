"""optuna"""

import optuna
import torch
from torch import nn

optuna.logging.set_verbosity(optuna.logging.ERROR)


def check_study(device):
    """a study over learning rate, width and optimizer with pruning: the same trials, values and winner"""
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(3))
    x, y = x.to(device), x.sum(1, keepdim=True).sin().to(device)

    def objective(trial):
        torch.manual_seed(trial.number)
        width = trial.suggest_int("width", 4, 16)
        net = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 1)).to(device)
        kind = trial.suggest_categorical("optimizer", ["Adam", "SGD"])
        optimizer = getattr(torch.optim, kind)(net.parameters(), trial.suggest_float("lr", 1e-3, 1e-1, log=True))
        for step in range(6):
            loss = (net(x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            trial.report(loss.item(), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss.item()

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1), pruner=optuna.pruners.MedianPruner(2))
    study.optimize(objective, n_trials=12)
    return [study.best_params, study.best_value, [(t.state.name, t.value, t.params) for t in study.trials]]
