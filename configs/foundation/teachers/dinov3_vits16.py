# DINOv3 ViT-S/16 (four registers, rotary positions), at 224 px: 14x14 patches. Its licence is Meta's own
foundation = dict(type='sfkd.TimmTeacher', name='vit_small_patch16_dinov3.lvd1689m', pretrained=True, img_size=224)
