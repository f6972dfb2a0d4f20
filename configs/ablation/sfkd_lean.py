# SFKD without DS2S: by Parseval its spatial term needs no bands then, and no wavelet runs
model = dict(type='SFKD', refine=False)
