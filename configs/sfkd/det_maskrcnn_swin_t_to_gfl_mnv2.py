# COCO, Mask R-CNN Swin-T to GFL MobileNetV2 (transformer to CNN, two-stage to dense): bash tools/dist_train.sh configs/sfkd/det_maskrcnn_swin_t_to_gfl_mnv2.py 8
# Total batch 8 x 2 = 16, the student's own 1x schedule (12 epochs, SGD). Not run to the end by this project: no AP is claimed.
_base_ = ['students/gfl_mnv2.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=512,
    teacher='mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/swin/mask_rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco/'
                 'mask_rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco_20210906_131725-bacf6f7b.pth')
