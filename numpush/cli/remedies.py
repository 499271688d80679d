"""What to type where `numpush doctor` found something: by who it is that set the limit.

A remedy is lines of shell, which may be comments; a container's limits are set from outside of it.
"""

from __future__ import annotations

import os

from ..shm import naming, space

__all__ = ["as_root", "container", "grow_shm", "raise_memory"]

_GIB = 1 << 30
_ROOT = "/"  #: where files of containers are looked for; tests have another


def as_root(command: str) -> str:
    """Return *command* as this user would have root run it."""
    return command if os.geteuid() == 0 else f"sudo {command}"


def container() -> str:
    """Return what this process was put into: "kubernetes", "docker", "podman", "slurm" or ""."""
    try:
        with open(f"{_ROOT}proc/self/cgroup") as file:
            groups = file.read()
    except OSError:
        groups = ""
    is_pod = os.path.exists(f"{_ROOT}var/run/secrets/kubernetes.io")
    if is_pod or "KUBERNETES_SERVICE_HOST" in os.environ or "kubepods" in groups:
        return "kubernetes"
    if os.path.exists(f"{_ROOT}run/.containerenv"):
        return "podman"
    if os.path.exists(f"{_ROOT}.dockerenv") or "/docker" in groups:
        return "docker"
    return "slurm" if "slurm" in groups else ""


def grow_shm() -> str:
    """Return what makes /dev/shm larger: half of the memory there is, as the kernel would make it."""
    n = max(1, space.memory() // 2 // _GIB)
    where = container()
    if where == "kubernetes":
        return (
            "# in the pod's manifest; it counts against the memory limit of its containers\n"
            f"#   volumes:      [{{name: shm, emptyDir: {{medium: Memory, sizeLimit: {n}Gi}}}}]\n"
            "#   volumeMounts: [{name: shm, mountPath: /dev/shm}]\n"
            "kubectl apply -f POD.yaml"
        )
    if where in ("docker", "podman"):
        return f"{where} run --shm-size={n}g ...   # in a compose file: shm_size: {n}gb"
    return as_root(f"mount -o remount,size={n}G {naming.DIR}")


def raise_memory(group: str, total: int) -> str:
    """Return what doubles the limit *total* of the control group whose directory is *group*."""
    n = max(1, 2 * total // _GIB)
    where = container()
    if where == "kubernetes":
        return f"kubectl set resources deployment NAME --limits=memory={n}Gi"
    if where in ("docker", "podman"):
        return f"{where} run --memory={n}g ..."
    if where == "slurm":
        return f"sbatch --mem={n}G ..."
    return as_root(f"systemctl set-property {os.path.basename(group)} MemoryMax={n}G")
