# The same models in R: Rscript compare.R PACKAGE CELLS.csv TABLE.csv
#
# Of the simulated cells, with a column for each gene, the package's coefficients and log-likelihood
# are written, one column per gene. Each fit stands between two marks, from which the page takes it.

arguments <- commandArgs(trailingOnly = TRUE)
package <- arguments[1]

cells <- read.csv(arguments[2], stringsAsFactors = TRUE)
genes <- grep("^gene_", names(cells), value = TRUE)
counts <- t(as.matrix(cells[genes])) # genes x cells, as R's packages want them

version <- tryCatch(as.character(packageVersion(package)), error = function(e) NULL)
if (is.null(version)) quit(status = 3)

fit_gene <- list(
  MASS = function(cells) {
    # begin MASS
    fit <- MASS::glm.nb(
      gene ~ pseudotime + cell_type + offset(log(size_factor)),
      data = cells
    )
    coef(fit) # mean
    log(fit$theta) # dispersion
    logLik(fit)
    # end MASS
    c(coef(fit), log(fit$theta), logLik(fit))
  },
  glmmTMB = function(cells) {
    # begin glmmTMB
    fit <- glmmTMB::glmmTMB(
      gene ~ pseudotime + cell_type + offset(log(size_factor)),
      dispformula = ~cell_type,
      family = glmmTMB::nbinom2,
      data = cells
    )
    glmmTMB::fixef(fit) # $cond: mean, $disp: dispersion, $zi: zero inflation
    logLik(fit)
    # end glmmTMB
    c(glmmTMB::fixef(fit)$cond, glmmTMB::fixef(fit)$disp, logLik(fit))
  },
  pscl = function(cells) {
    # begin pscl
    fit <- pscl::zeroinfl(
      gene ~ pseudotime + cell_type + offset(log(size_factor)) | pseudotime,
      dist = "negbin",
      data = cells
    )
    coef(fit, "count") # mean
    log(fit$theta) # dispersion
    coef(fit, "zero") # zero inflation
    logLik(fit)
    # end pscl
    c(coef(fit, "count"), log(fit$theta), coef(fit, "zero"), logLik(fit))
  }
)

fit_genes <- list(
  glmGamPoi = function() {
    # begin glmGamPoi
    fit <- glmGamPoi::glm_gp(
      counts, # genes x cells
      design = ~ pseudotime + cell_type,
      col_data = cells,
      offset = log(cells$size_factor),
      size_factors = FALSE,
      overdispersion_shrinkage = FALSE,
      do_cox_reid_adjustment = FALSE
    )
    fit$Beta # mean
    -log(fit$overdispersions) # dispersion
    logliks <- dnbinom(counts, mu = fit$Mu, size = 1 / fit$overdispersions, log = TRUE)
    rowSums(logliks)
    # end glmGamPoi
    rbind(t(fit$Beta), -log(fit$overdispersions), rowSums(logliks))
  }
)

if (package %in% names(fit_genes)) {
  table <- fit_genes[[package]]()
} else {
  table <- sapply(genes, function(name) {
    fit_gene[[package]](cbind(cells, gene = cells[[name]]))
  })
}
write.table(
  format(table, digits = 17), arguments[3],
  sep = ",", row.names = FALSE, col.names = FALSE, quote = FALSE
)
cat(version)
