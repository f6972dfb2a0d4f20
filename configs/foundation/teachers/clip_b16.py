# CLIP ViT-B/16, at 224 px; a normalisation of its own
foundation = dict(type='sfkd.TimmTeacher', name='vit_base_patch16_clip_224.openai', pretrained=True)
