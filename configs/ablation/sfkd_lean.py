# SFKD without DS2S: bands and GFFL of the aligned maps as they are
model = dict(type='SFKD', refine=False)
