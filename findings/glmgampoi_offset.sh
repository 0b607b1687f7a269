#!/usr/bin/env bash
# glmGamPoi 1.10.2 (Debian 12: r-bioc-glmgampoi 1.10.2+dfsg-1), R 4.2.2.
#
# glm_gp(counts, offset = log(depth)) does not replace the size factors by the offset: it
# estimates size factors as well ("normed_sum" is the default) and adds both, so that the depth
# of each cell counts twice. Means come out nearly half too large and overdispersions nearly
# doubled, without a warning. size_factors = FALSE makes the offset the only one.
#
# Output seen:
#   mean of the counts 2.427
#   offset alone given:      mean of Mu 3.471, median overdispersion 0.625
#   with size_factors=FALSE: mean of Mu 2.433, median overdispersion 0.340 (truth 0.333)
#   slope of the offset used on log(depth): 1.993
#
# Source: ?glmGamPoi::glm_gp, argument offset ("in addition to" the size factors) and the
# default of the argument size_factors.
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
n_cells <- 400
depth <- exp(rnorm(n_cells, 0, 0.6))
counts <- matrix(rnbinom(50 * n_cells, mu = outer(rep(2, 50), depth), size = 3), 50)

both <- glm_gp(counts, design = ~1, offset = log(depth))
alone <- glm_gp(counts, design = ~1, offset = log(depth), size_factors = FALSE)

show <- function(name, fit) {
  cat(sprintf(
    "%-24s mean of Mu %.3f, median overdispersion %.3f\n",
    name, mean(fit$Mu), median(fit$overdispersions)
  ))
}
cat(sprintf("mean of the counts %.3f\n", mean(counts)))
show("offset alone given:", both)
show("with size_factors=FALSE:", alone)
slope <- unname(coef(lm(both$Offset[1, ] ~ log(depth)))[2])
cat(sprintf("slope of the offset used on log(depth): %.3f\n", slope))

if (slope < 1.8 || mean(both$Mu) < 1.3 * mean(counts)) {
  stop("Differs: the depth counts once.")
}
if (abs(mean(alone$Mu) / mean(counts) - 1) > 0.05) stop("size_factors = FALSE is not right.")
R
