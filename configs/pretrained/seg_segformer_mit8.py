# A small transformer segmentor, trained alone from a classifier's backbone: SegFormer on a Mix Transformer of width 8, one block a stage
_base_ = 'seg_fcn_resnet8.py'
model = dict(
    backbone=dict(_delete_=True, type='MixVisionTransformer', embed_dims=8, num_stages=4, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 4, 8],
                  patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=(0, 1, 2, 3), mlp_ratio=4, qkv_bias=True, drop_path_rate=0.0,
                  init_cfg=dict(type='Pretrained', checkpoint='sfkd::pretrained/students/cls_mit8.safetensors', prefix='backbone.')),
    decode_head=dict(_delete_=True, type='SegformerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], channels=32,
                     dropout_ratio=0.1, num_classes=11, norm_cfg=dict(type='BN', requires_grad=True), align_corners=False,
                     loss_decode={{_base_.loss}}),
    auxiliary_head=None)
