"""Every collective of c10d, in several dtypes, with subgroups and asynchronous work."""

import torch
import torch.distributed as dist
from ranks import device, main, numbers

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.int8,
    torch.bool,
    torch.complex64,
]
OPS = ["SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR"]


def results(rank, size):
    where = device(rank)
    found = {}

    def case(name, run):
        try:
            value = run()
            found[name] = [t.detach().cpu() for t in value] if isinstance(value, list) else value.detach().cpu()
        except (RuntimeError, ValueError, TypeError) as error:
            found[name] = f"{type(error).__name__}: {error}"

    def mine(*shape, dtype=torch.float32, seed=0):
        return numbers(rank, *shape, dtype=dtype, seed=seed).to(where)

    def empty(*shape, dtype=torch.float32):
        return torch.zeros(*shape, dtype=dtype, device=where)

    for dtype in DTYPES:
        short = str(dtype).removeprefix("torch.")

        def all_reduce(op, dtype=dtype):
            tensor = mine(33, 7, dtype=dtype)
            dist.all_reduce(tensor, getattr(dist.ReduceOp, op))
            return tensor

        def reduce(dtype=dtype):
            tensor = mine(5, dtype=dtype)
            dist.reduce(tensor, 1)
            return tensor if rank == 1 else empty(1)

        def broadcast(dtype=dtype):
            tensor = mine(9, dtype=dtype)
            dist.broadcast(tensor, size - 1)
            return tensor

        def all_gather(dtype=dtype):
            parts = [empty(4, 3, dtype=dtype) for _ in range(size)]
            dist.all_gather(parts, mine(4, 3, dtype=dtype))
            return parts

        for op in OPS:
            if dtype in (torch.bool, torch.complex64) and op != "SUM":
                continue
            case(f"all_reduce {op} {short}", lambda op=op, run=all_reduce: run(op))
        case(f"reduce {short}", reduce)
        case(f"broadcast {short}", broadcast)
        case(f"all_gather {short}", all_gather)

    def all_gather_into_tensor():
        out = empty(size * 6)
        dist.all_gather_into_tensor(out, mine(6))
        return out

    def gather():
        parts = [empty(6) for _ in range(size)] if rank == 0 else None
        dist.gather(mine(6), parts, dst=0)
        return parts or empty(1)

    def scatter():
        out = empty(6)
        dist.scatter(out, [mine(6, seed=s) for s in range(size)] if rank == 1 else None, src=1)
        return out

    def reduce_scatter():
        out = empty(3)
        dist.reduce_scatter(out, [mine(3, seed=s) for s in range(size)])
        return out

    def reduce_scatter_tensor():
        out = empty(4)
        dist.reduce_scatter_tensor(out, mine(4 * size))
        return out

    def all_to_all_single():
        out = empty(2 * size)
        dist.all_to_all_single(out, mine(2 * size))
        return out

    def all_to_all_uneven():
        sends = [rank + peer + 1 for peer in range(size)]
        out = empty(sum(sends), 2)
        dist.all_to_all_single(out, mine(sum(sends), 2), output_split_sizes=sends, input_split_sizes=sends)
        return out

    def all_to_all():
        out = [empty(peer + rank + 1) for peer in range(size)]
        dist.all_to_all(out, [mine(peer + rank + 1, seed=peer) for peer in range(size)])
        return out

    def send_and_receive():
        got = empty(70_000)
        if rank == 0:
            dist.send(mine(70_000), 1)
            dist.recv(got, 1)
        elif rank == 1:
            dist.recv(got, 0)
            dist.send(got * 2, 0)
        return got

    def both_send_first():
        got = empty(300_000)
        peer = rank ^ 1
        if peer < size:
            requests = [dist.isend(mine(300_000), peer), dist.irecv(got, peer)]
            for request in requests:
                request.wait()
        return got

    def batch_isend_irecv():
        got = empty(1000)
        sent = mine(1000)
        requests = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, sent, (rank + 1) % size), dist.P2POp(dist.irecv, got, (rank - 1) % size)]
        )
        for request in requests:
            request.wait()
        return got

    def asynchronous():
        first, second = mine(1000, seed=1), mine(10, seed=2)
        works = [dist.all_reduce(first, async_op=True), dist.all_reduce(second, async_op=True)]
        later = mine(5) * 3  # does not wait for them
        for work in works:
            work.wait()
        return [first + 1, second, later, *works[0].get_future().value()]

    def in_order():
        tensor = mine(64)
        for _ in range(5):
            dist.all_reduce(tensor)
            tensor /= 3
            dist.broadcast(tensor, 0)
        return tensor

    def subgroups():
        everyone = dist.new_group(list(range(size)))
        pair = dist.new_group([0, 1])
        alone = [dist.new_group([r]) for r in range(size)]
        tensor = mine(8)
        dist.all_reduce(tensor, group=everyone)
        dist.all_reduce(tensor, group=alone[rank])
        if rank < 2:
            dist.all_reduce(tensor, group=pair)
        return tensor

    def coalesced():
        tensors = [mine(4, seed=3), mine(6, seed=4)]
        if where.type == "cpu":
            for tensor in tensors:
                dist.all_reduce(tensor)
        else:
            with dist._coalescing_manager(device=where):
                for tensor in tensors:
                    dist.all_reduce(tensor)
        return tensors

    def all_coalesced(collective, outs, ins):
        if where.type == "cpu":
            for out, given in zip(outs, ins, strict=True):
                collective(out, given)
        else:
            with dist._coalescing_manager(device=where):
                for out, given in zip(outs, ins, strict=True):
                    collective(out, given)
        return outs

    def coalesced_gathers():
        ins = [mine(3, seed=5), mine(5, seed=6)]
        return all_coalesced(dist.all_gather_into_tensor, [empty(size * 3), empty(size * 5)], ins)

    def coalesced_scatters():
        ins = [mine(size * 3, seed=5), mine(size * 5, seed=6)]
        return all_coalesced(dist.reduce_scatter_tensor, [empty(3), empty(5)], ins)

    def all_reduce_coalesced():
        tensors = [mine(4, seed=3), mine(6, 2, seed=4)]
        dist.all_reduce_coalesced(tensors)
        return tensors

    def all_gather_uneven():
        parts = [empty(peer + 1, 2) for peer in range(size)]
        dist.all_gather(parts, mine(rank + 1, 2))
        return parts

    def transposed():
        tensor = mine(4, 6).t()
        dist.all_reduce(tensor)
        return tensor

    def part_of_a_tensor():
        whole = mine(10, 4)
        dist.all_reduce(whole[2:5])
        dist.broadcast(whole[7], 0)
        return whole

    def objects():
        said = [None] * size
        dist.all_gather_object(said, {"rank": rank, "text": "x" * (rank + 1)})
        heard = [{"from": rank}]
        dist.broadcast_object_list(heard, 1)
        return torch.tensor([len(s["text"]) for s in said] + [heard[0]["from"]])

    def more_objects():
        gathered = [None] * size if rank == 0 else None
        dist.gather_object({"rank": rank}, gathered, dst=0)
        mine_of_all = [None]
        dist.scatter_object_list(mine_of_all, [10 * r for r in range(size)] if rank == 1 else None, src=1)
        passed = [{"from": rank}]
        if rank == 0:
            dist.send_object_list(passed, 1)
        elif rank == 1:
            dist.recv_object_list(passed, 0)
        return torch.tensor([len(gathered or []), mine_of_all[0], passed[0]["from"]])

    def monitored_barrier():
        if where.type == "cuda":  # Gloo's alone; NCCL says so
            try:
                dist.monitored_barrier()
            except ValueError as error:
                assert "only implemented for GLOO" in str(error), error
                dist.barrier()
                return empty(1)
        dist.monitored_barrier()
        return empty(1)

    def barriers():
        dist.barrier()
        work = dist.barrier(async_op=True)
        work.wait()
        return empty(1)

    def nothing():
        tensor = empty(0)
        dist.all_reduce(tensor)
        return tensor

    for run in (
        all_gather_into_tensor,
        gather,
        scatter,
        reduce_scatter,
        reduce_scatter_tensor,
        all_to_all_single,
        all_to_all_uneven,
        all_to_all,
        send_and_receive,
        both_send_first,
        batch_isend_irecv,
        asynchronous,
        in_order,
        subgroups,
        coalesced,
        coalesced_gathers,
        coalesced_scatters,
        all_reduce_coalesced,
        all_gather_uneven,
        transposed,
        part_of_a_tensor,
        objects,
        more_objects,
        barriers,
        monitored_barrier,
        nothing,
    ):
        case(run.__name__, run)
    if where.type == "cuda":
        premul = mine(9)
        dist.all_reduce(premul, dist._make_nccl_premul_sum(0.5))
        found["premul_sum"] = premul.cpu()
    return found


if __name__ == "__main__":
    main(results)
