"""Data sets of images and texts, and the loader that feeds them to the device in batches."""

from clnn.data.datasets import DataNote, cifar10, fashion_mnist, mnist
from clnn.data.images import ImageDataset
from clnn.data.loader import DataLoader
from clnn.data.photo import load_photo
from clnn.data.text import TextDataset, sms_spam
from clnn.data.transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    Invert,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    TenCrop,
    mean_image,
)

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "DataLoader",
    "DataNote",
    "ImageDataset",
    "Invert",
    "Normalize",
    "RandomCrop",
    "RandomHorizontalFlip",
    "TenCrop",
    "TextDataset",
    "cifar10",
    "fashion_mnist",
    "load_photo",
    "mean_image",
    "mnist",
    "sms_spam",
]
