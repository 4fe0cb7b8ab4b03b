"""Time an epoch of mnist-cnn: the usual DataLoader script against `training.fit`, in turns, on this machine.

Run from the root of the repository: `python -m benchmarks.training_speed [--epochs N] [--turns N] [--threads N]`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from training.fit import fit
from training.mnist import Mnist, load
from training.recipe import find


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """What torchvision.datasets.MNIST does for each image: a PIL picture, then the transforms."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor):
        self.images, self.labels = images, labels
        self.to_picture = transforms.ToPILImage()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.to_picture(self.images[index].numpy())), int(self.labels[index])


class Net(nn.Module):
    """The tutorial's network, as the tutorial writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.pooling = nn.MaxPool2d(2)
        self.fc = nn.Linear(320, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify: float32 (N, 1, 28, 28) to logits (N, 10)."""
        x = torch.relu(self.pooling(self.conv1(x)))
        x = torch.relu(self.pooling(self.conv2(x)))
        logits: torch.Tensor = self.fc(x.flatten(1))
        return logits


def train_usually(data: Mnist, epochs: int) -> None:
    """Run the usual script: a DataLoader in front of the loop, a test after each epoch."""
    torch.manual_seed(1)
    train = DataLoader(Pictures(data.train_images, data.train_labels), batch_size=64, shuffle=True)
    test = DataLoader(Pictures(data.test_images, data.test_labels), batch_size=64, shuffle=False)
    model, criterion = Net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    for _ in range(epochs):
        running_loss = 0.0
        for inputs, targets in train:
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        with torch.no_grad():
            correct = sum((model(inputs).argmax(dim=1) == targets).sum().item() for inputs, targets in test)
    print(f"  the usual script: {correct / len(data.test_images):.2%} right after {epochs} epoch(s)")


def train_here(data: Mnist, epochs: int, threads: int) -> None:
    """Run the recipe "seed" by `training.fit`."""
    trained = fit(replace(find("mnist-cnn", "seed"), epochs=epochs), data, seed=1, threads=threads)
    print(f"  training.fit: {trained.history[-1].accuracy:.2%} right after {epochs} epoch(s)")


def seconds(task: Callable[[], None]) -> tuple[float, float]:
    """Return the wall-clock and the CPU time of a task, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Time both in turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=1, help="epochs per turn (default: 1)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of training.fit (default: 1, its own default)")
    parser.add_argument(
        "--usual-threads", type=int, default=torch.get_num_threads(), help="threads of the usual script (torch's own)"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the MNIST files (default: data)")
    options = parser.parse_args()
    data = load(options.data)
    torch.set_num_threads(options.usual_threads)
    usual, here = [], []
    for _ in range(options.turns):
        usual.append(seconds(lambda: train_usually(data, options.epochs)))
        here.append(seconds(lambda: train_here(data, options.epochs, options.threads)))
    rows = {
        f"DataLoader script, {options.usual_threads} thread(s)": np.array(usual) / options.epochs,
        f"training.fit, {options.threads} thread(s)": np.array(here) / options.epochs,
    }
    print(f"\nmnist-cnn, seconds per epoch with its test, median of {options.turns}")
    medians = []
    for name, times in rows.items():
        wall, cpu = (statistics.median(column) for column in times.T.tolist())
        medians.append((wall, cpu))
        print(f"  {name:34}  wall {wall:6.2f}  CPU {cpu:6.2f}")
    print(f"  {'ratio':34}  wall {medians[1][0] / medians[0][0]:6.2f}  CPU {medians[1][1] / medians[0][1]:6.2f}")


if __name__ == "__main__":
    main()
