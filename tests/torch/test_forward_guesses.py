"""Plans are guessed from what ran before (plan_guess.h). Here the guess is wrong in every way there is: the same operators in
the same order, but with other sizes, dtypes, aliases, list lengths, kinds of numbers, devices, and inference mode in between."""

import threading

import torch
from compare import same_bits


def variants(device):
    """Arguments for one operator, each of another plan than its neighbours, or the same plan with other tensors."""
    base = torch.arange(24.0, device=device)
    grid = base.view(4, 6)
    complex_grid = torch.complex(grid, grid + 1)
    return [
        (grid, grid + 1),
        (grid, grid),  # the same storage twice
        (grid, base[6:12]),  # another view of it
        (grid, base[:6]),
        (grid.t(), grid.t() + 1),
        (grid[:, ::2], grid[:, 1::2]),
        (grid, 3),
        (grid, 3.5),
        (grid, torch.tensor(3.5)),  # a number in a CPU tensor
        (grid, torch.tensor(3.5, dtype=torch.float64)),
        (grid, torch.tensor(4)),
        (grid.to(torch.float64), grid),
        (grid.to(torch.int64), 2),
        (grid.to(torch.int64), True),
        (grid > 3, grid > 5),
        (complex_grid.conj(), complex_grid),
        (complex_grid, complex_grid.conj()),
        (base[:0], base[:0]),
        (base[3], base[4]),
        (base.view(1, 2, 3, 1, 4, 1), base[:4].view(4, 1)),  # more dimensions than are kept inline
        (base.view(2, 12), base[:12].expand(2, 12)),
    ]


def steps(device, order):
    """The values of a loop over all variants, in this order, that repeats itself exactly only now and then."""
    seen = []
    all_variants = variants(device)
    for index in order:
        a, b = all_variants[index]
        seen.append(torch.add(a, b))
        seen.append(torch.mul(a, b))
        if a.dtype == torch.float32:
            seen.append(a.clone().add_(b))
            tensors = [a, a + 1, b if isinstance(b, torch.Tensor) and b.dim() else a][: index % 3 + 1]
            seen.extend(torch._foreach_mul(tensors, 2.0))
            seen.append(torch.cat([t.reshape(-1) for t in tensors]))
            seen.append(a.clamp(min=1) if index % 2 else a.clamp(max=1))
            seen.append(a.sum(list(range(a.dim()))[: index % 3], keepdim=bool(index % 2)))
    return seen


def orders(count):
    generator = torch.Generator().manual_seed(7)
    every = list(range(count))
    shuffled = [torch.randperm(count, generator=generator).tolist() for _ in range(4)]
    return [every, every, every, every[::-1], *shuffled, every, every]


def test_a_wrong_guess_changes_nothing():
    """Goal: every value as on the CPU, in a loop that is sometimes the same as the turn before and mostly is not."""
    for order in orders(len(variants("cpu"))):
        for expected, actual in zip(steps("cpu", order), steps("cuda", order), strict=True):
            same_bits(expected, actual, strides=True)


def test_two_devices_and_two_threads():
    """Goal: the same while two threads run other loops on two devices each, which have the same plan numbers."""
    failures = []

    def work(devices, turns):
        try:
            for order in turns:
                expected = steps("cpu", order)
                for device in devices:
                    for here, there in zip(expected, steps(device, order), strict=True):
                        assert there.device == torch.device(device)
                        same_bits(here, there, strides=True)
        except BaseException as error:
            failures.append(error)

    turns = orders(len(variants("cpu")))
    threads = [
        threading.Thread(target=work, args=(["cuda:0", "cuda:1"], turns)),
        threading.Thread(target=work, args=(["cuda:1", "cuda:0"], turns[::-1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_inference_mode_is_each_tensor_s_own():
    """Goal: a plan met in inference mode serves outside of it and the other way round; autograd works as on the CPU."""
    for device in ("cpu", "cuda"):
        x = torch.arange(4.0, device=device).requires_grad_()
        for inside_first in (True, False, True):
            with torch.inference_mode(inside_first):
                made = (x + 1) * 2
                assert made.is_inference() is inside_first
                assert made.requires_grad is not inside_first
            with torch.inference_mode(not inside_first):
                made = (x + 1) * 2
                assert made.is_inference() is not inside_first
        made = (x + 1) * 2
        made.sum().backward()
        assert x.grad.tolist() == [2.0] * 4
        kept = made.detach()
        version = kept._version
        kept.add_(1)
        assert kept._version == version + 1
