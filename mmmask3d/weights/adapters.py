"""LoRA after the training: added to the encoder's weights, or written as an adapter of its own."""

import os
from collections.abc import Mapping

from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.models import LoRAEncoder
from mmmask3d.models import encoder_record as record
from mmmask3d.models.adapter import FORMAT, adapter_tensors, is_adapter
from mmmask3d.models.encoder_loading import encoder_state
from mmmask3d.weights import export


def merged(
    checkpoint: Mapping, config: Mapping | None, source: str, base: str | None = None
) -> Mapping:
    """The checkpoint with the whole encoder in place of LoRA matrices; any other as it is.

    Args:
        checkpoint: of a run with LoRA, or an adapter.
        config: of the run; None for the text in the checkpoint.
        source: name of the file.
        base: where the encoder's weights are; None for the place that the config or the adapter
            names.

    Raises:
        ValueError: ``base`` is given and there is no LoRA, or the config says nothing of it.
        RuntimeError: the weights are others than those of the training.
    """
    if is_adapter(checkpoint):
        module = record.encoder_config(checkpoint, None, source)
        encoder = export.load_encoder(module, source, base=base)
    elif has_lora(checkpoint):
        encoder = trained(checkpoint, config, source, base).merged()
    elif base is not None:
        raise ValueError(f'{source}: --base goes with LoRA or an adapter, and this is neither.')
    else:
        return checkpoint
    return {**checkpoint, 'state_dict': encoder.state_dict()}


def has_lora(checkpoint: Mapping) -> bool:
    """Whether a checkpoint holds LoRA matrices."""
    return any('.lora_' in key for key in checkpoint.get('state_dict', checkpoint))


def trained(
    checkpoint: Mapping, config: Mapping | None, source: str, base: str | None = None
) -> LoRAEncoder:
    """The encoder of a run with LoRA, with its weights and the trained matrices.

    Raises:
        ValueError: the checkpoint holds no LoRA, or its config does not say how it was trained.
        RuntimeError: the weights cannot be read or are others, or the matrices do not fit.
    """
    if not has_lora(checkpoint) or is_adapter(checkpoint):
        raise ValueError(
            f'{source}: expected the checkpoint of a run whose backbone is a LoRAEncoder.'
        )
    settings = record.encoder_config(checkpoint, config, source, with_lora=True)
    if not record.is_lora(settings):
        raise ValueError(
            f'{source}: holds LoRA matrices, and its config has the backbone {settings["type"]}. '
            'Pass the config of the run with --config.'
        )
    settings = {k: v for k, v in settings.items() if k != 'type'}
    if base is not None:
        settings['module'] = export.with_weights(settings['module'], base)
    encoder = LoRAEncoder(**settings)
    encoder.load_state_dict(encoder_state(checkpoint, None, source, with_lora=True), strict=True)
    return encoder.eval()


def write_adapter(
    checkpoint: Mapping, config: Mapping | None, source: str, out: str, base: str | None = None
) -> list[str]:
    """Write the LoRA matrices of a run as an adapter, and return lines that say what was done.

    Before it says so, the adapter is read back and added to the weights: the result is the encoder
    of the run, bit for bit.

    Raises:
        ValueError: see :func:`trained`; or the file that was written gives another encoder.
        RuntimeError: see :func:`trained`.
    """
    encoder = trained(checkpoint, config, source, base)
    settings = record.encoder_config(checkpoint, config, source, with_lora=True)
    module = export.described(settings['module'])
    tensors = adapter_tensors(encoder.module)
    started = _weights(module)
    location = base or started
    meta = export.encoder_metadata(
        checkpoint, config, module, tensors, encoder.grid_size, source
    ) | export.plain_values(
        {
            'format': FORMAT,
            'lora': {k: getattr(encoder, k) for k in ('rank', 'alpha', 'targets')},
            'base': {
                'name': _name(started, module),
                # Paths of this machine are nobody else's.
                'location': started if started and '://' in started else None,
                'sha256': encoder.base_sha256,
            },
        }
    )
    export.write_encoder(out, tensors, meta)
    recorded = record.encoder_config(load_checkpoint_file(out), None, out)
    again = export.load_encoder(recorded, out, base=location)
    expected = export.tensors_sha256(encoder.merged().state_dict())
    if export.tensors_sha256(again.state_dict()) != expected:
        os.remove(out)
        raise ValueError(f'{out}: the adapter that was written gives another encoder; removed it.')
    return [
        f'{out}: an adapter of {len(tensors) // 3} layers, {os.path.getsize(out) / 1e6:.2f} MB, '
        f'for {meta["base"]["name"]}',
        f'  sha256 of the weights it belongs to {meta["base"]["sha256"]}',
        '  read back and added to them: the encoder of the run, bit for bit',
    ]


def _name(weights: str | None, module: Mapping) -> str:
    model = module.get('model', str(module['type']).split('.')[-1])
    if weights is None:
        return f'{model} of timm'
    return f'{weights if "://" in weights else os.path.basename(weights)} ({model})'


def _weights(module: Mapping) -> str | None:
    """Location of the weights that a config names; None for timm's own of the model's name."""
    init = module.get('init_cfg')
    given = init.get('checkpoint') if isinstance(init, Mapping) else module.get('pretrained')
    return given if isinstance(given, str) else None
