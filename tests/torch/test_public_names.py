"""Every public name of torch.cuda, torch.accelerator, torch.amp and torch.backends.cuda/cudnn is used once."""

import importlib
import inspect
import warnings

import pytest
import torch
from public_names import USES

WORKS_MIN = 0.905  # of all names; raise it when more work
NEWEST = torch.__version__.startswith("2.13.")  # whose names public_names.py has; older PyTorch has fewer


def public(module):
    module = getattr(module, "m", module)  # torch.backends.cudnn is an object that holds the module
    names = getattr(module, "__all__", None)
    if names is None:
        names = [n for n, v in vars(module).items() if inspect.isroutine(v) or inspect.isclass(v)]
        names = [n for n in names if not n.startswith("_") and getattr(module, n).__module__ == module.__name__]
    return set(names)


def entered(context):
    with context:
        return True


def space(module):
    x = torch.arange(8.0, device="cuda")
    old = module == "torch.cuda.amp"
    return {
        "torch": torch,
        "entered": entered,
        "x": x,
        "y": x.to("cuda:1"),
        "q": torch.ones(1, 2, 3, 4, device="cuda"),
        "square": torch.ones(2, 2, device="cuda"),
        "model": torch.nn.Linear(8, 8, device="cuda"),
        "stream": torch.cuda.Stream(),
        "device": () if old else ("cuda",),
        "device_type": {} if old else {"device_type": "cuda"},
    }


def outcome(module, name, expression):
    """True when the name works, False when it says that it does not; anything else is an error."""
    what = f"{module}.{name}"
    it = getattr(importlib.import_module(module), name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = eval(expression, {**space(module), "it": it})
    except NotImplementedError as error:
        if "is not available on a Waldo device" in str(error):
            return False
        raise AssertionError(f"{what} raises {error!r}") from error
    except Exception as error:
        raise AssertionError(f"{what} raises {error!r}") from error
    finally:
        torch.cuda.set_stream(torch.cuda.default_stream(0))
        torch.cuda.set_device(0)
    assert result is not False, f"{what}: {expression} is false"
    return True


@pytest.mark.parametrize("module", USES)
def test_no_name_is_left_out(module):
    """Goal: a name that a new PyTorch brings is seen."""
    names = public(importlib.import_module(module))
    assert names <= set(USES[module])
    if NEWEST:
        assert names == set(USES[module])


def test_every_name_works_or_says_that_it_does_not(capsys):
    """Goal: no name of another machine's error, no AttributeError, no crash; and most of them work."""
    works, says, wrong = {}, [], []
    for module, uses in USES.items():
        works[module] = 0
        for name, expression in uses.items():
            if not NEWEST and not hasattr(importlib.import_module(module), name):
                continue
            try:
                if outcome(module, name, expression):
                    works[module] += 1
                else:
                    says.append(f"{module}.{name}")
            except AssertionError as error:
                wrong.append(str(error))
    count = sum(works.values())
    total = count + len(says) + len(wrong)
    with capsys.disabled():
        print()
        for module, uses in USES.items():
            print(f"  {module:28} {works[module]:4} of {len(uses)} work")
        print(f"  {count} of {total} public names work, {len(says)} say that they are not available: {', '.join(says)}")
    assert not wrong, "\n".join(wrong)
    assert count >= WORKS_MIN * total
