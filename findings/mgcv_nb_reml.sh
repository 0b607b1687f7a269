#!/usr/bin/env bash
# mgcv 1.8-41 (Debian 12: r-cran-mgcv 1.8-41-1) and MASS 7.3-58.2, R 4.2.2.
#
# gam(y ~ group, family = nb()) without any smooth term is not the maximum-likelihood fit of
# glm.nb: theta is estimated by REML, the default outside the exponential family, also where
# there is nothing to smooth. theta is smaller, the more so the more coefficients there are for
# the cells, and logLik() of the fit is below the maximum. method = "ML" gives glm.nb's theta.
#
# Output seen (10 groups):
#    100 cells: theta 1.245 (default), 1.576 (ML), 1.576 (glm.nb); logLik -191.149, -190.797, -190.797
#    300 cells: theta 1.504 (default), 1.620 (ML), 1.620 (glm.nb); logLik -582.771, -582.664, -582.664
#   1000 cells: theta 1.412 (default), 1.443 (ML), 1.443 (glm.nb); logLik -1935.005, -1934.972, -1934.972
#
# Source: ?mgcv::nb (theta by ML or REML) and ?mgcv::gam, argument method (REML is the default
# beyond the exponential family).
# Date: 2026-11-30. Needs: Debian 12 with Rscript (r-base-core).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq -o APT::Sandbox::User=root r-cran-mgcv=1.8-41-1 r-cran-mass=7.3-58.2-1 \
  r-cran-nlme r-cran-matrix r-cran-lattice
for package in ./*.deb; do dpkg -x "$package" .; done
export R_LIBS="$folder/usr/lib/R/library"

Rscript - <<'R'
suppressMessages(library(mgcv))
set.seed(2)
for (n in c(100, 300, 1000)) {
  group <- factor(rep(1:10, length.out = n))
  y <- rnbinom(n, mu = 2, size = 1.5)
  default <- gam(y ~ group, family = nb())
  ml <- gam(y ~ group, family = nb(), method = "ML")
  glm_nb <- MASS::glm.nb(y ~ group)
  theta <- c(default$family$getTheta(TRUE), ml$family$getTheta(TRUE), glm_nb$theta)
  likelihood <- c(logLik(default), logLik(ml), logLik(glm_nb))
  cat(sprintf(
    "%4d cells: theta %.3f (default), %.3f (ML), %.3f (glm.nb); logLik %.3f, %.3f, %.3f\n",
    n, theta[1], theta[2], theta[3], likelihood[1], likelihood[2], likelihood[3]
  ))
  if (default$method != "REML" || theta[1] > theta[3] * 0.99 || likelihood[1] > likelihood[3]) {
    stop("Differs: the default is the maximum-likelihood fit.")
  }
  if (abs(theta[2] / theta[3] - 1) > 0.001) stop("Differs: ML is not glm.nb's theta.")
}
R
