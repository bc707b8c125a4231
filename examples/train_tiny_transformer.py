"""Train a tiny transformer on token shards, stop in mid-epoch, resume, and get the same losses to the last bit.

    python examples/train_tiny_transformer.py SHARDS [--steps N]

SHARDS is what `multitok prepare` wrote, for example `demo-output/shards`. Three runs: one undisturbed; one that stops
half-way and saves model, optimizer and loader to one safetensors file; and one that starts from nothing but this file.
The script asserts that the losses of the second and third equal those of the first exactly, and that they fall.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from multitok.loader import PackedDataset
from multitok.shards import ShardSet
from multitok.vocabulary import Vocabulary

ROW_TOKENS, ROWS, WIDTH, HEADS, LAYERS, LEARNING_RATE = 256, 2, 64, 4, 2, 3e-3


class Block(nn.Module):
    """Attention inside a document, then a small MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B, L, D] -> [B, L, D]; `mask` [B, 1, L, L] says who may look at whom."""
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(self.norm_1(x)).chunk(3, -1))
        attended = functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)
        x = x + self.out(attended)
        return x + self.mlp(self.norm_2(x))


class TinyTransformer(nn.Module):
    """A decoder of two layers over the IDs that occur, with one table for input and output.

    Most IDs of a large vocabulary never occur in small data; without their rows the model fits one processor core.

    Args:
        occurring: [U] the IDs, ascending.
        vocab_size: Number of IDs of the vocabulary.
    """

    def __init__(self, occurring: torch.Tensor, vocab_size: int) -> None:
        super().__init__()
        self.register_buffer("row_of", torch.zeros(vocab_size, dtype=torch.int64), persistent=False)
        self.row_of[occurring] = torch.arange(len(occurring))
        self.tokens, self.positions = nn.Embedding(len(occurring), WIDTH), nn.Embedding(ROW_TOKENS, WIDTH)
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)

    def loss(self, batch: dict) -> torch.Tensor:
        """Weighted cross-entropy of the next token, each piece of a document seeing itself alone."""
        piece = (batch["position_ids"] == 0).cumsum(-1)  # positions restart with each piece of a row
        mask = (piece[:, None, :, None] == piece[:, None, None, :]).tril()
        x = self.tokens(self.row_of[batch["input_ids"]]) + self.positions(batch["position_ids"])
        for block in self.blocks:
            x = block(x, mask)
        logits = self.norm(x) @ self.tokens.weight.T
        weights = batch["loss_weights"].flatten()  # 0 where there is no label
        labels = self.row_of[batch["labels"].flatten().clamp(min=0)]
        losses = functional.cross_entropy(logits.flatten(0, 1), labels, reduction="none")
        return (losses * weights).sum() / weights.sum()


class Run:
    """A model, its optimizer and its data, which stop and resume together."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        vocabulary = Vocabulary.load(folder / "vocabulary.json")
        self.data = PackedDataset(
            folder,
            ROW_TOKENS,
            batch_size=ROWS,
            epochs=None,
            shuffle_tokens=ROW_TOKENS // 2,  # long sounds and pictures come in pieces, so that every batch is mixed
            vocabulary=vocabulary,
            pad_id=vocabulary.id_of("<|pad|>"),
        )
        shards = ShardSet(folder)
        occurring = np.unique(np.concatenate([np.unique(shards.ids(k)) for k in range(len(shards))]))
        self.model = TinyTransformer(torch.from_numpy(occurring.astype(np.int64)), vocabulary.vocab_size)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), LEARNING_RATE)

    def losses(self) -> Iterator[float]:
        """Train for ever, one batch and one loss at a time."""
        for batch in self.data:
            loss = self.model.loss(batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            yield float(loss.detach())

    def save(self, path: Path) -> None:
        """Everything that a later run needs; the loader's share is a few numbers."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for parameter, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{parameter}.{name}": tensor for name, tensor in state.items()}
        save_file(tensors, path, metadata={"loader": json.dumps(self.data.state_dict())})

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        with safe_open(path, "pt") as file:
            self.data.load_state_dict(json.loads(file.metadata()["loader"]))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dict
        prefix = "model."
        self.model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        state = self.optimizer.state_dict()
        for key, tensor in tensors.items():
            if key.startswith("optimizer."):
                _, parameter, name = key.split(".")
                state["state"].setdefault(int(parameter), {})[name] = tensor
        self.optimizer.load_state_dict(state)


def main() -> None:
    """Train, stop, resume, compare."""
    parser = argparse.ArgumentParser(description="Train on token shards, stop, resume, get the same losses.")
    parser.add_argument("shards", type=Path, help="a folder that multitok prepare wrote")
    parser.add_argument("--steps", type=int, default=100, help="batches of %(default)s by default")
    arguments = parser.parse_args()
    steps, stop = arguments.steps, arguments.steps // 2
    torch.set_num_threads(1)  # sums in another order would differ in the last bit

    shards = ShardSet(arguments.shards)
    print(f"{len(shards):,} documents, {shards.num_tokens:,} tokens, {shards.manifest.vocab_size:,} IDs")
    undisturbed = [loss for _, loss in zip(range(steps), Run(arguments.shards).losses(), strict=False)]
    tenth = max(1, steps // 10)
    # A batch often lies within one long document, an easy or a hard one: means show the trend.
    for step in range(0, steps, tenth):
        part = undisturbed[step : step + tenth]
        print(f"steps {step:3} to {step + len(part) - 1:3}  mean loss {sum(part) / len(part):.3f}")

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.safetensors"
        first = Run(arguments.shards)
        losses = [loss for _, loss in zip(range(stop), first.losses(), strict=False)]
        first.save(checkpoint)
        state = first.data.state_dict()
        print(f"stopped after {stop} batches: epoch {state['epoch']}, position {state['position']}")
        second = Run(arguments.shards)
        second.load(checkpoint)
        losses += [loss for _, loss in zip(range(steps - stop), second.losses(), strict=False)]

    assert state["position"] or state["carry"], "the stop fell on the end of an epoch: choose another --steps"
    assert losses == undisturbed, "the resumed run differs"
    before, after = sum(undisturbed[:tenth]) / tenth, sum(undisturbed[-tenth:]) / tenth
    assert after < before, f"the loss rose from {before:.4f} to {after:.4f}"
    print(f"resumed: all {steps} losses are the same to the last bit; the loss fell from {before:.4f} to {after:.4f}")


if __name__ == "__main__":
    main()
