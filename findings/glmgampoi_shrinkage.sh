#!/usr/bin/env bash
# glmGamPoi 1.10.2 (Debian 12: r-bioc-glmgampoi 1.10.2+dfsg-1), R 4.2.2.
#
# With overdispersion_shrinkage = TRUE, the default, glm_gp shrinks no overdispersion: the
# element overdispersions equals that of a fit without shrinkage. Beta and Mu, however, belong
# to another overdispersion, that of the trend over genes
# (overdispersion_shrinkage_list$dispersion_trend). A likelihood or a simulation from Mu and
# overdispersions of one object mixes two fits. What is shrunken are the quasi-likelihood
# dispersions (ql_disp_shrunken), which test_de uses.
#
# Output seen:
#   overdispersions, shrinkage on against off: largest difference 0
#   Beta, refitted with the overdispersions of the object: largest difference 0.05153
#   Beta, refitted with the trend of the object:           largest difference 0.00005
#
# Source: ?glmGamPoi::glm_gp, argument overdispersion_shrinkage and element overdispersions;
# print(glmGamPoi:::glm_gp_impl), which estimates Beta again with the trend.
# Date: 2026-11-30. Needs: Debian 12 with Rscript (r-base-core).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
without=(--no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances)
mapfile -t needed < <(apt-cache depends --recurse "${without[@]}" r-bioc-glmgampoi |
  grep -E '^(r-cran|r-bioc|libhdf5|libaec0|libsz2|libblosc1|libsnappy1v5|libcurl[34]-gnutls)' |
  grep -v -e '-dev$' -e '^r-bioc-glmgampoi$' | sort -u)
apt-get download -qq -o APT::Sandbox::User=root r-bioc-glmgampoi=1.10.2+dfsg-1 "${needed[@]}"
for package in ./*.deb; do dpkg -x "$package" .; done
export R_LIBS="$folder/usr/lib/R/site-library:$folder/usr/lib/R/library"
LD_LIBRARY_PATH=$(echo "$folder"/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH

Rscript - <<'R'
suppressMessages(library(glmGamPoi))
set.seed(1)
x <- seq(-1, 1, length.out = 80)
mu <- outer(exp(rnorm(200, 0.5, 1)), exp(0.5 * x))
counts <- matrix(rnbinom(length(mu), mu = mu, size = 1), 200)
fit <- function(overdispersion = TRUE, shrinkage = TRUE) {
  glm_gp(
    counts, design = ~x, col_data = data.frame(x), size_factors = FALSE,
    overdispersion = overdispersion, overdispersion_shrinkage = shrinkage
  )
}
on <- fit()
off <- fit(shrinkage = FALSE)
same <- max(abs(on$overdispersions - off$overdispersions))
own <- max(abs(on$Beta - fit(on$overdispersions, FALSE)$Beta))
trend <- max(abs(on$Beta - fit(on$overdispersion_shrinkage_list$dispersion_trend, FALSE)$Beta))
cat(sprintf("overdispersions, shrinkage on against off: largest difference %g\n", same))
cat(sprintf("Beta, refitted with the overdispersions of the object: largest difference %.5f\n", own))
cat(sprintf("Beta, refitted with the trend of the object:           largest difference %.5f\n", trend))

if (same > 1e-8) stop("Differs: overdispersions change with shrinkage.")
if (own < 0.01 || trend > 0.001) stop("Differs: Beta belongs to the overdispersions.")
R
