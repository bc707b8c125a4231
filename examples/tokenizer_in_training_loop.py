"""A tokenizer inside a training loop: `python examples/tokenizer_in_training_loop.py [--steps N] [--device cuda]`.

    faded photo -> small net -> pixels -> tokenizer.module -> pixels <-> the photo as it was
                   trained                frozen, gradients pass through it

The net learns to restore photos before they are tokenized, from a loss behind the tokenizer. A photo that it never saw
shows what that gives: decibels, codes that equal those of the photo as it was, and a picture.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import multitok
from multitok.frontend import media

PHOTOS, UNSEEN = ("coffee.png", "rocket.jpg"), "cat.png"
SIDE, RATE = 48, 5e-3  # pixels of a crop; learning rate


class Restorer(nn.Module):
    """Pixels [B, 3, H, W] -> pixels; changes nothing at first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Add what is missing."""
        return pixels + 128 * self.last(self.first(pixels / 128 - 1).relu())


def faded(pixels: torch.Tensor) -> torch.Tensor:
    """Little contrast, a yellow cast and grain."""
    return 0.5 * pixels + pixels.new_tensor([110, 90, 50])[:, None, None] + 8 * torch.randn_like(pixels)


def crop(photo: torch.Tensor) -> torch.Tensor:
    """[3, SIDE, SIDE] from anywhere in a photo."""
    y, x = (int(torch.randint(side - SIDE, (1,))) for side in photo.shape[1:])
    return photo[:, y : y + SIDE, x : x + SIDE]


parser = argparse.ArgumentParser(description="Train a net through a tokenizer.")
parser.add_argument("--tokenizer", default="image-f8", help="a shipped checkpoint or a folder")
parser.add_argument("--steps", type=int, default=48)
parser.add_argument("--device", default="cpu")
arguments = parser.parse_args()
torch.manual_seed(0)

tokenizer = multitok.load(arguments.tokenizer)
module = tokenizer.module.to(arguments.device)  # an nn.Module without parameters, so only `net` is trained
files = [Path(__file__).parent / "data/photos" / name for name in (*PHOTOS, UNSEEN)]
*photos, unseen = (torch.tensor(media.read(f), device=arguments.device).permute(2, 0, 1).float() for f in files)

net = Restorer().to(arguments.device)
optimizer = torch.optim.Adam(net.parameters(), RATE)
for step in range(1, arguments.steps + 1):
    clean = torch.stack([crop(photo) for photo in photos * 2])
    loss = functional.mse_loss(module(net(faded(clean))) / 255, clean / 255)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step == 1 or step % 8 == 0:
        print(f"step {step:4}  loss {loss.item():.4f}")

clean, old = unseen[None], faded(unseen[None])
kinds = {"faded": old, "restored": net(old).detach(), "as it was": clean}
codes = {kind: module.encode(pixels) for kind, pixels in kinds.items()}  # [1, K, h, w] int64
decoded = {kind: module.decode(each, size=tuple(unseen.shape[1:])) for kind, each in codes.items()}
for kind, pixels in decoded.items():
    psnr = -10 * torch.log10(functional.mse_loss(pixels / 255, clean / 255)).item()
    same = (codes[kind][:, 0] == codes["as it was"][:, 0]).double().mean().item()
    print(f"{kind:9}  decodes to {psnr:.2f} dB; {same:6.1%} of its first codes are those of the photo as it was")
picture = torch.cat([*decoded.values()], 3)[0].permute(1, 2, 0).byte().cpu().numpy()
print("wrote", media.write("restored.png", tokenizer.spec.modality, picture))
