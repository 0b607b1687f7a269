# P-values of glmGamPoi: Rscript sums.R COUNTS.csv OBS.csv P_VALUES.csv
#
# Counts are genes x samples, without names.

arguments <- commandArgs(trailingOnly = TRUE)
if (!requireNamespace("glmGamPoi", quietly = TRUE)) quit(status = 3)

counts <- as.matrix(read.csv(arguments[1], header = FALSE))
obs <- read.csv(arguments[2])
fit <- glmGamPoi::glm_gp(
  counts,
  design = ~condition, col_data = obs, offset = obs$log_depth, size_factors = FALSE
)
test <- glmGamPoi::test_de(fit, contrast = "condition")
write.csv(data.frame(p_value = test$pval), arguments[3], row.names = FALSE)
