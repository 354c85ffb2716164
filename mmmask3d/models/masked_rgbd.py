"""Mask3D: learn to see depth by completing it from a few patches of an RGB-D frame.

The whole method (Hou et al., CVPR 2023, arXiv 2302.14746), top to bottom:

1. RGB and depth patches of a frame are removed at random and independently, 80 % of each
   (``DepthAwareMasking`` draws the masks; 1 = removed).
2. The kept RGB patches alone go through the RGB ViT, the kept depth patches through a light
   depth encoder.
3. Both are fused per location into a bottleneck; learned mask tokens stand where nothing was kept.
4. A light decoder reconstructs the dense depth map.
5. The loss looks at pixels that have a reading and lie in a removed depth patch.

Afterwards everything but the RGB ViT is thrown away.
"""

from typing import Any

import torch
from mmengine.model import ModuleDict
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmmask3d.models.encoder import with_normalisation
from mmmask3d.models.feature_cache import FeatureCache
from mmmask3d.models.patches import grid_of, patchify
from mmmask3d.registry import MODELS

_TARGETS = ('depth', 'rgb', 'normal')


@MODELS.register_module()
class MaskedRGBD(BaseSelfSupervisor):
    """Masked RGB-D pre-training.

    What is predicted is a matter of ``heads``: ``depth`` is Mask3D, ``rgb`` alone and no
    ``depth_encoder`` is MAE, both together or ``normal`` are ablations. Each head has a decoder
    of the same name.

    Args:
        backbone: the RGB encoder, a :class:`Mask3DViT`, :class:`TimmViT` or :class:`LoRAEncoder`.
        fusion: how RGB and depth meet; ``rgb_dims``, ``depth_dims`` and ``num_extra_tokens`` are
            filled in.
        decoders: by name; ``in_dims`` and ``num_extra_tokens`` are filled in.
        heads: by the same names, out of ``depth``, ``rgb`` and ``normal``; ``in_dims`` and
            ``patch_size`` are filled in.
        depth_encoder: the depth branch; None for RGB input alone. ``patch_size`` is filled in.
        anchor: config of a :class:`FeatureAnchor`, which keeps the encoder's features near those
            of a frozen teacher, by default the encoder as it was loaded; ``embed_dims`` is filled
            in. For continuing strong weights.
        contrast: config of :class:`RGBDContrast`, a term between RGB and depth tokens; channels are
            filled in.
        share_frozen: the backbone's frozen stages see the whole image, once for the backbone and
            the anchor's copy of it, and patches are removed after them. With nothing removed it
            changes cost alone.
        cache_gib: memory for what training does not change, the output of shared frozen stages
            and of the anchor's teacher. Worth it where images come again unchanged.
        data_preprocessor: config of :class:`RGBDDataPreprocessor`; ``patch_size`` is filled in.
        init_cfg: as for every mmengine module.
    """

    def __init__(
        self,
        backbone: dict,
        fusion: dict,
        decoders: dict[str, dict],
        heads: dict[str, dict],
        depth_encoder: dict | None = None,
        anchor: dict | None = None,
        contrast: dict | None = None,
        share_frozen: bool = False,
        cache_gib: float = 0.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        # A head set to None switches a target off that a base config brings.
        off = {k for k, v in heads.items() if v is None}
        heads = {k: v for k, v in heads.items() if k not in off}
        decoders = {k: v for k, v in decoders.items() if k not in off and v is not None}
        if not heads or heads.keys() != decoders.keys() or not heads.keys() <= set(_TARGETS):
            raise ValueError(
                f'Heads are named after what they predict, {_TARGETS}, and each needs a decoder of '
                f'its name; found heads {sorted(heads)} and decoders {sorted(decoders)}.'
            )
        encoder = MODELS.build(backbone)
        patch_size, extra = encoder.patch_size, encoder.num_extra_tokens
        preprocessor = {'type': 'mmmask3d.RGBDDataPreprocessor', **(data_preprocessor or {})}
        preprocessor = with_normalisation(preprocessor, encoder)
        super().__init__(
            backbone=encoder,
            data_preprocessor=MODELS.build({**preprocessor, 'patch_size': patch_size}),
            init_cfg=init_cfg,
        )
        depth_dims = None
        self.depth_encoder = None
        if depth_encoder is not None:
            self.depth_encoder = MODELS.build({**depth_encoder, 'patch_size': patch_size})
            depth_dims = self.depth_encoder.embed_dims
        self.fusion = MODELS.build(
            {
                **fusion,
                'rgb_dims': self.backbone.embed_dims,
                'depth_dims': depth_dims,
                'num_extra_tokens': extra,
            }
        )
        fused = dict(in_dims=self.fusion.embed_dims, num_extra_tokens=extra)
        self.decoders = ModuleDict(
            {k: MODELS.build({**cfg, **fused}) for k, cfg in decoders.items()}
        )
        self.heads = ModuleDict(
            {
                k: MODELS.build(
                    {**cfg, 'in_dims': self.decoders[k].embed_dims, 'patch_size': patch_size}
                )
                for k, cfg in heads.items()
            }
        )
        self.contrast: Any = None
        if contrast is not None:
            if depth_dims is None:
                raise ValueError('contrast compares RGB with depth tokens: give a depth_encoder.')
            dims = dict(rgb_dims=self.backbone.embed_dims, depth_dims=depth_dims)
            self.contrast = MODELS.build({**contrast, **dims})
        self.anchor: Any = None
        if anchor is not None:
            self.anchor = MODELS.build({**anchor, 'embed_dims': self.backbone.embed_dims})
            if self.anchor.teacher_cfg is None and not self.backbone.has_weights():
                raise ValueError(
                    'An anchor keeps the encoder near the weights it starts from, and the backbone '
                    'names none. Give it pretrained or init_cfg (load_from comes too late), or '
                    'give the anchor a teacher.'
                )
        if share_frozen and self.backbone.frozen_stages < 0:
            raise ValueError('share_frozen=True needs backbone.frozen_stages of 0 or more.')
        if cache_gib and not (share_frozen or anchor):
            raise ValueError(
                f'cache_gib={cache_gib}: there is nothing to keep without share_frozen=True or an '
                f'anchor.'
            )
        self.share_frozen = share_frozen
        self._cache = FeatureCache(cache_gib) if cache_gib else None
        self._teacher_shares: bool | None = None  # frozen stages; None: to be compared
        self._check_depth_head()
        residual = 'depth' in self.heads and self.heads['depth'].residual
        self.data_preprocessor.interpolate = residual

    def init_weights(self) -> None:
        """Initialise every part; the anchor's teacher is the encoder as it is then."""
        first = not self.is_init  # a Runner calls this again on a model that was loaded before
        super().init_weights()
        if first and self.anchor is not None:
            self.anchor.set_teacher(self.backbone)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._teacher_shares = None
        if self._cache is not None:
            self._cache.clear()

    def forward(
        self, inputs: dict[str, Tensor], data_samples: list | None = None, mode: str = 'tensor'
    ) -> Any:
        """mmengine's entry: ``mode`` is ``'loss'``, ``'predict'`` or ``'tensor'``."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    def extract_feat(self, inputs: dict[str, Tensor] | Tensor) -> tuple[Tensor, ...]:
        """Features of the unmasked RGB image, what a downstream task would see.

        Args:
            inputs: a batch of the preprocessor, or images ``(B, 3, H, W)``.
        """
        return self.backbone(inputs['img'] if isinstance(inputs, dict) else inputs)

    def reconstruct(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Predict every target of a batch from its kept patches.

        Args:
            batch: see :meth:`RGBDDataPreprocessor.forward`.

        Returns:
            Maps ``(B, C, H, W)`` float32 by head.
        """
        frozen = self.backbone.forward_frozen(batch['img']) if self.share_frozen else None
        return self._decode(self._encode(batch, frozen), self._encode_depth(batch), batch)

    def _encode(
        self, batch: dict[str, Tensor], frozen: Tensor | None = None, **options: Any
    ) -> Any:
        return self.backbone(batch['img'], batch['rgb_keep'], frozen=frozen, **options)

    def _encode_depth(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Tokens ``(B, K, C)`` of the kept depth patches; None without a depth branch."""
        if self.depth_encoder is None:
            return None
        tokens: Tensor = self.depth_encoder(batch['depth'], batch['given'], batch['depth_keep'])
        return tokens

    def _decode(
        self,
        rgb: Tensor,
        depth: Tensor | None,
        batch: dict[str, Tensor],
        ids: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """From the encoders' tokens, RGB ``(B, E + K, C)``, to maps by head.

        ``ids`` are the patches to decode, for heads that do not decode all.
        """
        ids, grid = ids or {}, self.grid(batch)
        kept = (batch['rgb_keep'],) if depth is None else (batch['rgb_keep'], batch['depth_keep'])
        visible = torch.cat(kept, dim=1)
        fused = self.fusion(rgb, batch['rgb_keep'], depth, batch['depth_keep'], grid)
        maps = {}
        for name, head in self.heads.items():
            tokens = self.decoders[name](fused, grid, visible, ids.get(name))
            maps[name] = head(tokens, grid, batch, ids.get(name))
        return maps

    def loss(
        self, inputs: dict[str, Tensor], data_samples: list | None = None
    ) -> dict[str, Tensor]:
        """Losses by name: ``loss_depth``, ``loss_rgb``, ..., ``loss_anchor``."""
        grid = self.grid(inputs)
        losses = {}
        frozen, targets = self._unchanged(inputs['img'], grid)
        if self.anchor is None:
            rgb = self._encode(inputs, frozen)
        else:
            rgb, losses['loss_anchor'] = self._anchored(inputs, frozen, targets)
        depth = self._encode_depth(inputs)
        if self.contrast is not None:
            given = patchify(inputs['given'], self.backbone.patch_size).any(-1)
            kept = rgb[:, self.backbone.num_extra_tokens :], inputs['rgb_keep']
            losses['loss_contrast'] = self.contrast(*kept, depth, inputs['depth_keep'], given)
        ids = self._sample(inputs) if self.training else {}
        for name, pred in self._decode(rgb, depth, inputs, ids).items():
            for part, value in self.heads[name].loss(pred, grid, inputs, ids.get(name)).items():
                losses['_'.join(filter(None, ('loss', name, part)))] = value
        return losses

    def _sample(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Patches to decode in a training step, by those heads that do not decode all."""
        shares = {name: decoder.share for name, decoder in self.decoders.items()}
        return {k: self.heads[k].sample(batch, share) for k, share in shares.items() if share < 1}

    def _unchanged(
        self, images: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor | None, list[Tensor]]:
        """What training does not change: tokens after shared frozen stages, and the teacher's."""

        def compute(images: Tensor) -> list[Tensor]:
            found = [self.backbone.forward_frozen(images)] if self.share_frozen else []
            if self.anchor is not None:
                if self._teacher_shares is None:
                    self._teacher_shares = self.anchor.shares(self.backbone)
                shared = found[0] if found and self._teacher_shares else None
                pixels = self.data_preprocessor.normalised_for(images, self.anchor.teacher)
                found += self.anchor.targets(pixels, grid, shared)
            return found

        found = compute(images) if self._cache is None else self._cache(images, compute)
        return (found[0], found[1:]) if self.share_frozen else (None, found)

    def _anchored(
        self, batch: dict[str, Tensor], frozen: Tensor | None, targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The encoder's last tokens, and how far its patch tokens are from the teacher's."""
        *compared, last = self._encode(batch, frozen, layers=(*self.anchor.layers, -1))
        patches = tuple(out[:, self.backbone.num_extra_tokens :] for out in compared)
        return last, self.anchor(patches, targets, batch['rgb_keep'])

    @torch.no_grad()
    def predict(
        self, inputs: dict[str, Tensor], data_samples: list[DataSample] | None = None
    ) -> list[DataSample]:
        """Reconstruct, for evaluation and pictures.

        Returns:
            One sample a frame, with ``depth`` and ``valid`` ``(H, W)``, ``rgb_mask`` and
            ``depth_mask`` ``(N,)``, and, where there is such a head: ``pred_target`` ``(H, W)``
            in units of the target; ``pred_depth`` ``(H, W)`` in metres (or relative), read with
            the statistics of the *kept* readings and absent where those do not lead there;
            ``pred_rgb`` ``(3, H, W)`` uint8 RGB; ``pred_normal`` ``(3, H, W)``. Metainfo:
            ``patch_size``, ``grid``, ``target_mode``, ``depth_input`` (whether the kept depth
            patches were an input).
        """
        grid = self.grid(inputs)
        maps = self.reconstruct(inputs)
        fields = {k: inputs[k] for k in ('depth', 'valid')}
        if 'depth' in maps:
            fields['pred_target'] = maps['depth']
            if self._can_decode(inputs):
                fields['pred_depth'] = self._decode_from_kept(maps['depth'], inputs)
        fields = {k: v.squeeze(1) for k, v in fields.items()}
        fields.update({k: inputs[k] for k in ('rgb_mask', 'depth_mask')})
        if 'rgb' in maps:
            img = self.heads['rgb'].to_image(maps['rgb'], grid, inputs)
            pre = self.data_preprocessor
            fields['pred_rgb'] = (img * pre.std + pre.mean).round().clamp(0, 255).byte()
        if 'normal' in maps:
            fields['pred_normal'] = nn.functional.normalize(maps['normal'], dim=1)
        if data_samples is None:
            data_samples = [DataSample() for _ in range(len(inputs['img']))]
        for i, sample in enumerate(data_samples):
            sample.set_metainfo(
                dict(
                    patch_size=self.backbone.patch_size,
                    grid=grid,
                    target_mode=self.data_preprocessor.depth_target.mode,
                    depth_input=self.depth_encoder is not None,
                )
            )
            for name, value in fields.items():
                sample.set_field(value[i], name)
        return data_samples

    def grid(self, batch: dict[str, Tensor]) -> tuple[int, int]:
        """Patch grid ``(rows, columns)`` of a batch."""
        return grid_of(batch['img'].shape[-2], batch['img'].shape[-1], self.backbone.patch_size)

    def _can_decode(self, batch: dict[str, Tensor]) -> bool:
        target = self.data_preprocessor.depth_target
        if target.mode == 'standardise':
            return self.depth_encoder is not None and batch['depth_keep'].shape[1] > 0
        return target.invertible_without_truth

    def _decode_from_kept(self, pred: Tensor, batch: dict[str, Tensor]) -> Tensor:
        pre = self.data_preprocessor
        stats = pre.depth_target.statistics(batch['depth'], pre.kept_readings(batch))
        return pre.depth_target.decode(pred, stats)

    def _check_depth_head(self) -> None:
        """Refuse combinations of target and loss that have no meaning."""
        if 'depth' not in self.heads:
            return
        head, target = self.heads['depth'], self.data_preprocessor.depth_target
        for loss in head.losses:
            if loss.needs_positive_depth:
                expected = 'log' if loss.log_input else 'metric'
                if target.mode != expected:
                    raise ValueError(
                        f'{type(loss).__name__}(log_input={loss.log_input}) goes with '
                        f"depth_target.mode='{expected}', not '{target.mode}'."
                    )
        if head.residual:
            exact = target.stats_from == 'kept' or target.needs_metric
            if not exact or self.depth_encoder is None:
                raise ValueError(
                    'A residual over the interpolation needs depth input and depth_target.stats='
                    "'kept' (or a metric, log or inverse target): the interpolation may not be "
                    'expressed in statistics of readings the network is not given.'
                )
