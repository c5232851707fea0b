"""How fast this machine trains: steps per second of a small network, tried for two seconds.

    python -m tradeoffs.repro.calibration        prints the number and the device that it is of, `cpu` or a GPU's name;
                                               `make run` holds them against those of metrics/times.json

A process of its own: torch would stay in memory beside all stages.
"""

import time

import torch

from tradeoffs.plumbing import cli

SECONDS = 2.0
TOKENS, HIDDEN, INNER, LAYERS = 1024, 256, 512, 4  # of about the demo's batches and layers


def rate(seconds: float = SECONDS) -> float:
    """Steps per second (forward, backward, AdamW) in bfloat16 autocast on the threads that a stage gets, as the demo's
    base is trained. At least one step, after a few that do not count."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    blocks = [
        torch.nn.Sequential(torch.nn.Linear(HIDDEN, INNER), torch.nn.SiLU(), torch.nn.Linear(INNER, HIDDEN))
        for _ in range(LAYERS)
    ]
    model = torch.nn.Sequential(*blocks).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = torch.randn(TOKENS, HIDDEN, device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            made = model(batch)
        loss = made.float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits for a GPU

    for _ in range(5):  # threads, caches and the libraries' own choices
        step()
    steps, begun = 0, time.perf_counter()
    while not steps or time.perf_counter() - begun < seconds:
        step()
        steps += 1
    return steps / (time.perf_counter() - begun)


def main() -> None:
    print(f"{rate():.2f} {torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'}")


if __name__ == "__main__":
    cli.command(main)
