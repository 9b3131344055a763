"""The inputs of the published NAMM, as `Namm.tokens` makes them, of ages and a spectrum made by hand."""

from types import SimpleNamespace

from memx.namm.policies.features.normalisation import standardise
from memx.namm.policies.features.registry import PUBLISHED, FeatureSet
from memx.namm.policies.features.spectral import published


def token_features(ages, spectrum, mean, variance, eps=0.0):
    """ages [B, H or 1, T], spectrum [B, H, T, 17], mean and variance [17] -> [B, H, T, 25]."""
    numbers = published(SimpleNamespace(ages=ages), spectrum)
    return standardise(numbers, FeatureSet(PUBLISHED).standardised, mean, variance, eps)
