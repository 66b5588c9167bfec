"""Data sets of images and texts, and the loader that feeds them to the device in batches."""

from clnn.data.datasets import DataNote, ImageDataset, cifar10, fashion_mnist, mnist
from clnn.data.loader import DataLoader
from clnn.data.text import TextDataset, sms_spam
from clnn.data.transforms import Compose, Invert, Normalize

__all__ = [
    "Compose",
    "DataLoader",
    "DataNote",
    "ImageDataset",
    "Invert",
    "Normalize",
    "TextDataset",
    "cifar10",
    "fashion_mnist",
    "mnist",
    "sms_spam",
]
