"""The losses and the optimiser as they are defined: one image, one pair, one number at a time.

Predictions are log-probabilities [N, classes], distances are those of all pairs [N, B] of a synthetic and a real image.
All is differentiable; numpy's arrays do as well where nothing but their entries is read.
"""

import numpy as np
import torch


def log_probabilities(logits):
    """Of a softmax over classes."""
    return torch.stack([row - row.exp().sum().log() for row in logits])


def cosine_distances(syn, real):
    """One minus the cosine of each pair of features."""
    return torch.stack([torch.stack([1 - (f @ g) / (f.norm() * g.norm()) for g in real]) for f in syn])


def clom(logs, labels):
    """The mean over images of minus the log-probability of the label."""
    return sum(-row[y] for row, y in zip(logs, labels, strict=True)) / len(labels)


def ce_ratio(logs, labels, real_labels):
    """CCLoM's ratio, with the synthetic image's cross-entropy for the class of the real one as distance."""
    return cclom([[-row[z] for z in real_labels] for row in logs], labels, real_labels)


def cos_mean(distances, labels, real_labels):
    """For each synthetic image the mean distance to the real images of its class; then the mean of these."""
    terms = []
    for row, y in zip(distances, labels, strict=True):
        of_class = [distance for distance, z in zip(row, real_labels, strict=True) if y == z]
        terms.append(sum(of_class) / len(of_class))
    return sum(terms) / len(terms)


def cclom_parts(distances, labels, real_labels):
    """The sums of the distances of pairs of one class, and of all pairs."""
    same = total = 0
    for row, y in zip(distances, labels, strict=True):
        for distance, z in zip(row, real_labels, strict=True):
            total = total + distance
            if y == z:
                same = same + distance
    return same, total


def cclom(distances, labels, real_labels):
    """The share that pairs of one class have in the sum of all distances."""
    same, total = cclom_parts(distances, labels, real_labels)
    return same / total


def distribution_matching(syn, syn_labels, real, real_labels, num_classes):
    """Over classes, the squared distance between the mean features; no image of a class has the mean zero."""
    loss = 0
    for c in range(num_classes):
        means = []
        for features, labels in ((syn, syn_labels), (real, real_labels)):
            of_class = [f for f, y in zip(features, labels, strict=True) if y == c]
            means.append(sum(of_class) / len(of_class) if of_class else torch.zeros_like(features[0]))
        loss = loss + sum((a - b) ** 2 for a, b in zip(*means, strict=True))
    return loss


def gradient_matching(syn, real):
    """Equations 9 and 10 of Dataset Condensation: layer by layer, one minus the cosine of each output unit."""
    loss = 0
    for a, b in zip(syn, real, strict=True):
        if a.ndim == 1:
            continue  # biases and norms do not count
        for u, v in zip(a, b, strict=True):
            norms = u.square().sum().sqrt() * v.square().sum().sqrt()
            loss = loss + 1 - (u * v).sum() / (norms + 1e-6)
    return loss


def pcgrad(gradients, orders):
    """Algorithm 1 of arXiv 2001.06782 on vectors, then the mean; gradient i meets the others in ``orders[i]``."""
    total = np.zeros_like(gradients[0])
    for i, (g, order) in enumerate(zip(gradients, orders, strict=True)):
        for j in order:
            inner = float(g @ gradients[j])
            if j != i and inner < 0:
                g = g - inner / float(gradients[j] @ gradients[j]) * gradients[j]
        total += g
    return total / len(gradients)


@torch.no_grad()
def sgd_step(parameters, gradients, velocities, lr, momentum=0.0, weight_decay=0.0):
    """v = momentum v + (gradient + weight_decay w), w = w - lr v, in place; ``velocities`` are zeros at first."""
    for w, g, v in zip(parameters, gradients, velocities, strict=True):
        v.copy_(momentum * v + g + weight_decay * w)
        w -= lr * v
