"""Results as one netCDF-4 file, and back."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError, described
from gradprobe.core.spec import canonical_json
from gradprobe.store.files import TEMPORARY
from gradprobe.store.schema import SCHEMA_VERSION

_ORDER = "variable_order"
_HDF5 = b"\x89HDF\r\n\x1a\n"


def export(ds: xr.Dataset, path: str | Path) -> Path:
    """Write results to one netCDF-4 file, whole or not at all.

    Args:
        ds: Results (or anything made of them).
        path: File to write; one that is there is replaced.

    Returns:
        The file.

    Raises:
        UsageError: The extra ``gradprobe[netcdf]`` is missing, or the file cannot be written.

    Example:
        >>> file = gp.export(ds, folder / "run.nc")
        >>> gp.open_run(file).sizes == ds.sizes
        True
    """
    if not isinstance(ds, xr.Dataset):
        raise UsageError(f"what is exported are results, not {described(ds)}.")
    _need_netcdf()
    file = Path(path)
    # the format keeps variables by name; their order is kept beside them
    marked = ds.assign_attrs({_ORDER: canonical_json([[*map(str, ds.coords)], [*map(str, ds.data_vars)]])})
    temporary = file.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        marked.to_netcdf(temporary, engine="h5netcdf", format="NETCDF4")
        os.replace(temporary, file)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}; choose another place.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return file


def read_export(path: str | Path) -> xr.Dataset:
    """Read what :func:`export` wrote.

    Raises:
        UsageError: It cannot be read, or a newer version wrote it.
    """
    import json

    _check_netcdf(Path(path))
    _need_netcdf()
    try:
        with xr.open_dataset(path, engine="h5netcdf") as stored:
            ds = stored.load()
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is not a file that gradprobe exported ({error}).") from error
    if int(ds.attrs.get("schema_version", 0)) > SCHEMA_VERSION:
        raise UsageError(
            f"{path} was written by a newer gradprobe; update this one (schema {SCHEMA_VERSION})."
        )
    coords, variables = json.loads(ds.attrs.pop(_ORDER, "[[], []]"))
    data = {name: ds[name].variable for name in variables or ds.data_vars}
    attrs = {k: v.item() if hasattr(v, "item") else v for k, v in ds.attrs.items()}
    ordered = xr.Dataset(data, {name: ds[name].variable for name in coords or ds.coords}, attrs)
    for variable in ordered.variables.values():
        variable.encoding.clear()
    return _with_products(ordered)


def _with_products(ds: xr.Dataset) -> xr.Dataset:
    """Results of schema 1 with products of seeds, which nobody knew then."""
    dims = ("estimator", "parameter", "seed")
    if ds.attrs.get("schema_version") != 1 or not set(dims) <= set(ds.dims) or "seed_product" in ds:
        return ds
    shape = [ds.sizes[d] for d in (*dims, "seed")]
    ds = ds.assign_coords(other_seed=("other_seed", ds["seed"].values))
    return ds.assign(seed_product=((*dims, "other_seed"), np.full(shape, np.nan)))


def _check_netcdf(file: Path) -> None:
    """Refuse a file that does not begin as netCDF-4 does, whether the extra is there or not."""
    try:
        with file.open("rb") as stream:
            known = stream.read(len(_HDF5)) == _HDF5
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror}; give a file that gp.export wrote."
        ) from error
    if not known:
        raise UsageError(
            f"{file} is not a file that gradprobe exported; give the folder of a run, or what gp.export wrote."
        )


def _need_netcdf() -> None:
    try:
        import h5netcdf  # noqa: F401 - whether it is there
        import h5py  # noqa: F401 - likewise
    except ImportError as error:
        raise UsageError("netCDF files need an extra: pip install 'gradprobe[netcdf]'.") from error
