"""A tokenizer of your own photos in ten minutes: `python examples/train_image_tokenizer.py [FOLDER ...] [--minutes M]`.

The more and the more varied the photos, the better; the three of the sample data only show how it goes. `--resume` goes
on after a break. `multitok train image` is the same from the command line, with more choices; presets of clips and
volumes (video-4x8x8, volume-4 ...) train those in the same way.
"""

import argparse
import sys
from pathlib import Path

import multitok
from multitok.frontend import media
from multitok.metrics import psnr
from multitok.train.options import TrainingOptions
from multitok.train.train_autoencoder import train_autoencoder


def main() -> None:
    """Train, save, load, use."""
    photos = Path(__file__).parent / "data/photos"
    parser = argparse.ArgumentParser(description="Train an image tokenizer on a folder of photos.")
    parser.add_argument("folders", type=Path, nargs="*", default=[photos], help="folders of photos, or single ones")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--preset", default="image-f8", help="image-f8, image-f8-8, image-f16 or image-small")
    parser.add_argument("--out", type=Path, default=Path("my-image-tokenizer"), help="folder of the tokenizer")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()

    result = train_autoencoder(
        arguments.folders,
        arguments.out.with_name(f"{arguments.out.name}-run"),  # log, states and pictures of the run
        preset=arguments.preset,
        options=TrainingOptions(minutes=arguments.minutes),
        resume=arguments.resume,
        command=" ".join(["python", *sys.argv]),  # the card tells how the tokenizer was made
    )
    assert result is not None  # it is, on the first process of several
    multitok.save(result.tokenizer, arguments.out, card=result.card)

    tokenizer = multitok.load(arguments.out)
    photo = media.read(photos / "coffee.png")
    codes = tokenizer.encode(photo)
    quality = psnr(photo, tokenizer.decode(codes))
    held_out = ", ".join(f"{decibels:.2f}" for decibels in result.psnr)
    print(f"{result.steps:,} steps; held-out photos with 1 to {len(result.psnr)} codebooks: {held_out} dB")
    print(f"coffee.png: {photo.shape} -> codes {codes.values.shape}, {codes.num_tokens:,} tokens, {quality:.2f} dB")
    print("wrote", arguments.out / "model.safetensors")
    print(f"look at it: python {Path(__file__).with_name('image.py')} PHOTO --tokenizer {arguments.out}")


if __name__ == "__main__":
    main()
