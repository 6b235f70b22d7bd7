"""torchmetrics"""

import torch
import torchmetrics
from torchmetrics.functional.text import perplexity


def batches(device):
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        logits = torch.randn(16, 4, generator=generator)
        yield logits.softmax(1).to(device), torch.randint(4, (16,), generator=generator).to(device)


def check_classification(device):
    """accuracy, F1, AUROC, average precision, confusion matrix, Cohen's kappa over three batches"""
    out = {}
    for name in ("Accuracy", "F1Score", "AUROC", "AveragePrecision", "ConfusionMatrix", "CohenKappa"):
        metric = getattr(torchmetrics, name)(task="multiclass", num_classes=4).to(device)
        for scores, labels in batches(device):
            metric.update(scores, labels)
        out[name] = metric.compute()
        assert out[name].device.type == device
    return out


def check_regression(device):
    """MSE, MAE, R², Pearson, Spearman, explained variance"""
    out = {}
    for name in (
        "MeanSquaredError",
        "MeanAbsoluteError",
        "R2Score",
        "PearsonCorrCoef",
        "SpearmanCorrCoef",
        "ExplainedVariance",
    ):
        metric = getattr(torchmetrics, name)().to(device)
        for scores, labels in batches(device):
            metric.update(scores[:, 0], labels.float())
        out[name] = metric.compute()
    return out


def check_collection(device):
    """MetricCollection: forward, compute, reset, state_dict; retrieval and perplexity"""
    metrics = torchmetrics.MetricCollection(
        {
            "top1": torchmetrics.Accuracy(task="multiclass", num_classes=4),
            "top2": torchmetrics.Accuracy(task="multiclass", num_classes=4, top_k=2),
        }
    ).to(device)
    each = [metrics(scores, labels) for scores, labels in batches(device)]
    retrieval = torchmetrics.RetrievalMRR().to(device)
    for scores, labels in batches(device):
        retrieval.update(scores[:, 0], labels == 1, indexes=torch.arange(16, device=device) // 4)
    scores, labels = next(iter(batches(device)))
    out = [each, metrics.compute(), retrieval.compute(), perplexity(scores[None].log(), labels[None])]
    metrics.reset()
    return [*out, metrics["top1"].update_count]


def check_image(device):
    """PSNR and SSIM"""
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.rand(2, 3, 24, 24, generator=generator).to(device) for _ in range(2))
    psnr = torchmetrics.image.PeakSignalNoiseRatio(data_range=1.0).to(device)(a, b)
    ssim = torchmetrics.image.StructuralSimilarityIndexMeasure(data_range=1.0).to(device)(a, b)
    return [psnr, ssim]
