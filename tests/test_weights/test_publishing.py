"""What is published: weights and plain facts, under stated terms, or nothing at all."""

import hashlib
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmpretrain.models import VisionTransformer

from mmmask3d.apis import get_model
from mmmask3d.atomic_file import write_file
from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.checkpoints.locations import install_strict_loaders
from mmmask3d.models import Mask3DViT
from mmmask3d.models import encoder_record as record
from mmmask3d.registry import MODELS
from mmmask3d.weights import export
from mmmask3d.weights.publishing import PublishingError, check_terms, publish

ARCH = dict(embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=48)
STATED = dict(data_license='own frames, CC BY 4.0', terms='Apache-2.0')
METRICS = {'masked_depth/rmse': 0.25}


def run_config(root='/home/someone/data/my_rooms', **model):
    return dict(
        default_scope='mmmask3d',
        model=dict(
            type='MaskedRGBD',
            backbone=dict(type='Mask3DViT', arch=ARCH, img_size=(32, 72), patch_size=8, **model),
            fusion=dict(type='AddFusion', embed_dims=16),
            decoders=dict(depth=dict(type='DepthDecoder', num_layers=1, num_heads=2)),
            heads=dict(depth=dict(type='DepthHead', loss=dict(type='DepthL2Loss'))),
        ),
        train_dataloader=dict(
            batch_size=16,
            dataset=dict(type='RGBDDataset', data_root=root, ann_file='train.txt', pipeline=[]),
        ),
        train_cfg=dict(max_epochs=5),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, betas=(0.9, 1))
        ),
        work_dir='/home/someone/work',
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    built = MODELS.build(run_config()['model'])
    built.init_weights()
    return built


@pytest.fixture
def checkpoint(model, tmp_path):
    """Function that writes a checkpoint as a run leaves it; returns its path."""

    def write(name='epoch_5.pth', **config):
        path = tmp_path / name
        meta = {
            'cfg': Config(run_config(**config)).pretty_text,
            'epoch': 5,
            'iter': 40,
            'seed': 3,
            'experiment_name': 'secret',
            'dataset_meta': {'classes': ('a', 'b')},
        }
        torch.save(
            {
                'meta': meta,
                'state_dict': model.state_dict(),
                'optimizer': {'state': {0: {'exp_avg': torch.ones(3)}}},
                'param_schedulers': [{'last_step': 3}],
                'message_hub': {'log_scalars': {'loss': HistoryBuffer([1.0], [1])}},
                'ema_state_dict': {'steps': torch.ones(1)},
            },
            path,
        )
        return path

    return write


def test_the_encoder_of_a_run(checkpoint, model, tmp_path):
    source = checkpoint()
    written = publish(source, tmp_path / 'zoo/mine', metrics=METRICS, **STATED)
    digest = hashlib.sha256(
        (tmp_path / 'zoo' / f'mine-{written["sha256"][:8]}.safetensors').read_bytes()
    )
    assert digest.hexdigest() == written['sha256']
    assert len(list((tmp_path / 'zoo').iterdir())) == 3
    install_strict_loaders()  # mmpretrain's own loader knows no .safetensors
    for kind in (Mask3DViT, VisionTransformer):
        init_cfg = dict(type='Pretrained', checkpoint=written['weights'])
        loaded = kind(arch=ARCH, img_size=(32, 72), patch_size=8, init_cfg=init_cfg)
        loaded.init_weights()
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, model.backbone.state_dict()[key]), key
    held = load_checkpoint_file(written['weights'])
    assert set(held) == {'meta', 'state_dict'}
    assert set(held['state_dict']) == set(model.backbone.state_dict())
    card = json.loads((tmp_path / written['card']).read_text())
    assert (card['seed'], card['epoch'], card['iter']) == (3, 5, 40)
    assert card['schedule'] == {
        'max_epochs': 5,
        'batch_size_per_process': 16,
        'optimizer': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0.05},
    }
    assert card['data'][0]['data_root'] == 'my_rooms'
    assert card['figures'] == METRICS
    assert card['parameters'] == sum(p.numel() for p in model.backbone.parameters())
    text = (tmp_path / written['text']).read_text()
    for fact in ('CC BY 4.0', 'Apache-2.0', 'my_rooms', '0.25', written['sha256'], 'mmmask3d 0.'):
        assert fact in text
    everything = str(held['meta']) + text + json.dumps(card)
    for private in ('someone', 'secret', str(tmp_path), 'work_dir'):
        assert private not in everything


def test_a_whole_model_in_half_precision(checkpoint, model, tmp_path):
    written = publish(checkpoint(), tmp_path / 'mine', part='model', dtype='float16', **STATED)
    held = load_checkpoint_file(written['weights'])['state_dict']
    assert held.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(held[key], value.half()), key
    loaded = get_model(Config(run_config()), pretrained=written['weights'])
    assert torch.equal(loaded.backbone.ln1.bias, model.backbone.ln1.bias.half().float())
    assert loaded.dataset_meta == {'classes': ['a', 'b']}
    # The encoder alone is found in it, on its 4x9 grid.
    init_cfg = dict(type='Pretrained', checkpoint=written['weights'])
    other = Mask3DViT(arch=ARCH, img_size=48, patch_size=8, init_cfg=init_cfg)
    other.init_weights()
    whole = export.resample_encoder(
        held | {'pos_embed': held['backbone.pos_embed'].float()}, (4, 9), (6, 6)
    )
    torch.testing.assert_close(other.pos_embed.data, whole['pos_embed'], rtol=0, atol=2e-3)


def test_the_same_source_gives_the_same_file(checkpoint, tmp_path):
    source = checkpoint()
    one, other = (publish(source, tmp_path / name / 'mine', **STATED) for name in 'ab')
    assert one['sha256'] == other['sha256']


def test_an_encoder_that_was_extracted_before(checkpoint, model, tmp_path):
    source, config = checkpoint(), run_config()
    read = load_checkpoint_file(source)
    state = export.encoder_state_dict(read)
    backbone = config['model']['backbone']
    meta = export.encoder_metadata(read, config, backbone, state, (4, 9), source)
    for suffix in ('.pth', '.safetensors'):
        export.write_encoder(tmp_path / f'encoder{suffix}', state, meta)
        written = publish(tmp_path / f'encoder{suffix}', tmp_path / 'mine', **STATED)
        card = json.loads((tmp_path / written['card']).read_text())
        assert card['data'][0]['data_root'] == 'my_rooms'
        assert card['patch_grid'] == [4, 9]


@pytest.mark.parametrize(
    'root',
    ['/data/scannet', 'data/ScanNet_frames_25k', 'nyuv2', 'data/nyu_depth', 'SUN-RGBD',
     '/d/cityscapes/', 'data/7scenes', 'matterport3d', 'kitti_raw', '/data/ScanNet/frames',
     'data/nyuv2/train', '/mnt/kitti/raw/depth'],
)  # fmt: skip
def test_research_only_frames_are_never_published(checkpoint, tmp_path, root):
    with pytest.raises(PublishingError, match='for research only'):
        publish(checkpoint(root=root), tmp_path / 'zoo/mine', **STATED)
    assert not (tmp_path / 'zoo').exists()


@pytest.mark.parametrize(
    ('stated', 'message'),
    [
        (dict(STATED, data_license='CC BY-NC 4.0'), 'restrict their use'),
        (dict(STATED, data_license='for research and teaching'), 'restrict their use'),
        (dict(STATED, data_license='non-commercial'), 'restrict their use'),
        (dict(STATED, data_license=' '), '--data-license'),
        (dict(STATED, terms=''), '--terms'),
    ],
)
def test_terms_must_be_stated_and_allow_it(checkpoint, tmp_path, stated, message):
    with pytest.raises(PublishingError, match=message):
        publish(checkpoint(), tmp_path / 'zoo/mine', **stated)
    assert not (tmp_path / 'zoo').exists()


def test_names_below_the_root_count_too(checkpoint, tmp_path):
    config = run_config()
    config['train_dataloader']['dataset']['data_prefix'] = dict(img_path='scannet/rgb')
    with pytest.raises(PublishingError, match='frames of ScanNet, by the names in its config'):
        publish(checkpoint(), tmp_path / 'mine', config=config, **STATED)


def extracted(source, folder):
    """As tools/model_converters/extract_backbone.py writes it."""
    read = load_checkpoint_file(source)
    backbone = record.encoder_config(read, None, source)
    state = export.encoder_state_dict(read)
    meta = export.encoder_metadata(read, None, backbone, state, (4, 9), source)
    export.write_encoder(folder / 'extracted.pth', state, meta)
    return folder / 'extracted.pth'


def test_what_an_extract_was_trained_on_is_not_forgotten(checkpoint, tmp_path):
    encoder = extracted(checkpoint(root='/data/ScanNet/frames'), tmp_path)
    with pytest.raises(PublishingError, match='frames of ScanNet'):
        publish(encoder, tmp_path / 'mine', **STATED)


def test_data_inside_a_concatenation_count():
    data = [{'data_root': 'rooms'}, {'data_root': 'x', 'type': 'NYUv2Dataset'}]
    with pytest.raises(PublishingError, match='NYU Depth v2'):
        check_terms(data, 'own', 'Apache-2.0', 'file')
    check_terms(data[:1], 'own', 'Apache-2.0', 'file')


def test_unknown_data_are_refused(model, tmp_path):
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'bare.pth')
    with pytest.raises(PublishingError, match='does not tell which data'):
        publish(tmp_path / 'bare.pth', tmp_path / 'mine', **STATED)
    written = publish(tmp_path / 'bare.pth', tmp_path / 'mine', config=run_config(), **STATED)
    assert json.loads((tmp_path / written['card']).read_text())['seed'] is None


def test_initial_weights_bind_too(checkpoint, tmp_path):
    start = dict(init_cfg=dict(type='Pretrained', checkpoint='/home/someone/mae_vit_base.pth'))
    source = checkpoint(**start)
    with pytest.raises(PublishingError, match=r'started from mae_vit_base\.pth.*--init-license'):
        publish(source, tmp_path / 'mine', **STATED)
    restricted = dict(init_license='CC BY-NC 4.0', data_license='own')
    with pytest.raises(PublishingError, match=r"cannot be given away under 'Apache-2\.0'"):
        publish(source, tmp_path / 'mine', **{**STATED, **restricted})
    restricted['terms'] = 'CC BY-NC 4.0'
    written = publish(source, tmp_path / 'mine', part='model', **restricted)
    card = (tmp_path / written['card']).read_text()
    assert json.loads(card)['initialised_from'] == ['mae_vit_base.pth']
    assert 'someone' not in card
    assert 'CC BY-NC 4.0' in (tmp_path / written['text']).read_text()
    assert export.initial_weights({'model': {}, 'load_from': 'a/b.pth'}) == ['b.pth']


def test_initial_weights_of_an_extract_and_of_a_published_file_bind_too(checkpoint, tmp_path):
    start = dict(init_cfg=dict(type='Pretrained', checkpoint='/home/someone/mae_vit_base.pth'))
    encoder = extracted(checkpoint(**start), tmp_path)
    with pytest.raises(PublishingError, match=r'started from mae_vit_base\.pth'):
        publish(encoder, tmp_path / 'mine', **STATED)
    first = publish(encoder, tmp_path / 'mine', init_license='MIT', **STATED)
    again = publish(first['weights'], tmp_path / 'again', **STATED)
    card = json.loads((tmp_path / again['card']).read_text())
    assert (card['initialised_from'], card['init_license']) == (['mae_vit_base.pth'], 'MIT')


def test_weights_named_by_the_backbone_bind_too(checkpoint, tmp_path):
    source = checkpoint(pretrained='/home/someone/mae_vit_base.pth')
    with pytest.raises(PublishingError, match=r'started from mae_vit_base\.pth'):
        publish(source, tmp_path / 'mine', **STATED)
    written = publish(source, tmp_path / 'mine', init_license='MIT', **STATED)
    assert 'someone' not in (tmp_path / written['card']).read_text()
    assert 'someone' not in str(load_checkpoint_file(written['weights'])['meta'])


def test_a_start_that_nothing_tells_is_not_called_random(model, checkpoint, tmp_path):
    run = publish(checkpoint(), tmp_path / 'mine', **STATED)
    assert '| Started from | random weights |' in (tmp_path / run['text']).read_text()
    encoder = load_checkpoint_file(run['weights'])
    meta = {k: v for k, v in record.read_meta(encoder).items() if k != 'initialised_from'}
    export.write_encoder(tmp_path / 'older.pth', encoder['state_dict'], meta)
    older = publish(tmp_path / 'older.pth', tmp_path / 'older', **STATED)
    assert '| Started from | not recorded |' in (tmp_path / older['text']).read_text()
    meta['converted_from'] = 'mae'
    export.write_encoder(tmp_path / 'mae.pth', encoder['state_dict'], meta)
    with pytest.raises(PublishingError, match='started from weights of mae'):
        publish(tmp_path / 'mae.pth', tmp_path / 'mae', **STATED)


def test_damaged_or_too_large_numbers(model, checkpoint, tmp_path):
    model.backbone.ln1.bias.data[0] = 1e6
    with pytest.raises(PublishingError, match=r'ln1\.bias holds NaN, .* beyond torch\.float16'):
        publish(checkpoint(), tmp_path / 'zoo/mine', dtype='float16', **STATED)
    model.backbone.ln1.bias.data[0] = float('nan')
    with pytest.raises(PublishingError, match=r'ln1\.bias holds NaN'):
        publish(checkpoint(), tmp_path / 'zoo/mine', **STATED)
    assert not (tmp_path / 'zoo').exists()


def test_a_config_of_another_model(checkpoint, model, tmp_path):
    config = run_config()
    config['model']['decoders']['depth']['num_layers'] = 2
    with pytest.raises(PublishingError, match=r'decoders\.depth\.layers\.1'):
        publish(checkpoint(), tmp_path / 'mine', part='model', config=config, **STATED)


def test_all_files_or_none(checkpoint, tmp_path, monkeypatch):
    source, folder = checkpoint(), tmp_path / 'zoo'
    monkeypatch.setattr('mmmask3d.weights.publishing.card_text', lambda card: 'x' * 10)

    def full_after_two(path, data):
        if path.suffix == '.md':
            raise OSError('No space left on device')
        return write_file(path, data)

    monkeypatch.setattr('mmmask3d.weights.publishing.write_file', full_after_two)
    with pytest.raises(OSError, match='No space'):
        publish(source, folder / 'mine', **STATED)
    assert list(folder.iterdir()) == []


def test_an_anchor_is_neither_published_nor_built(tmp_path):
    """It serves training alone; its projection is in the checkpoint of a run and nowhere else."""
    config = run_config()
    teacher = dict(type='Mask3DViT', arch={**ARCH, 'embed_dims': 48}, patch_size=8)
    file = str(tmp_path / 'teacher.pth')
    torch.save(MODELS.build(teacher).state_dict(), file)
    teacher['init_cfg'] = dict(type='Pretrained', checkpoint=file)
    config['model'] |= dict(anchor=dict(type='FeatureAnchor', teacher=teacher), cache_gib=0.1)
    trained = MODELS.build(config['model'])
    trained.init_weights()
    state, path = trained.state_dict(), tmp_path / 'epoch_5.pth'
    own = {key: value for key, value in state.items() if not key.startswith('anchor.')}
    assert len(state) == len(own) + 2
    torch.save({'state_dict': state, 'meta': {'cfg': Config(config).pretty_text}}, path)
    written = publish(path, tmp_path / 'mine', part='model', **STATED, init_license='MIT')
    published = load_checkpoint_file(written['weights'])
    card = json.loads((tmp_path / written['card']).read_text())
    assert published['state_dict'].keys() == own.keys()
    assert not {'anchor', 'cache_gib'} & card['model'].keys()
    assert card['method']['anchor'] == 'Mask3DViT'
    for weights in (path, written['weights']):
        model = get_model(config, pretrained=weights)
        assert model.anchor is None
        assert model.state_dict().keys() == own.keys()
        for key, value in model.state_dict().items():
            assert torch.equal(value, own[key]), key
    assert config['model']['anchor']['teacher'] == teacher  # the caller's config stays
