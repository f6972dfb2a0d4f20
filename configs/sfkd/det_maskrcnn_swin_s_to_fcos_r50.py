# COCO, Mask R-CNN Swin-S to FCOS R50 (transformer to CNN, two-stage to anchor-free, another normalisation): bash tools/dist_train.sh configs/sfkd/det_maskrcnn_swin_s_to_fcos_r50.py 8
# Total batch 8 x 2 = 16, the student's own 1x schedule (12 epochs, SGD). Not run to the end by this project: no AP is claimed.
_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=512,
    teacher='mmdet::swin/mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/swin/mask_rcnn_swin-s-p4-w7_fpn_fp16_ms-crop-3x_coco/'
                 'mask_rcnn_swin-s-p4-w7_fpn_fp16_ms-crop-3x_coco_20210903_104808-b92c91f1.pth')
