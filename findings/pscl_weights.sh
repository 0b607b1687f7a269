#!/usr/bin/env bash
# pscl 1.5.5 (Debian 12: r-cran-pscl 1.5.5-1+b1), R 4.2.2.
#
# zeroinfl(dist = "negbin", weights = w) with whole weights should be the fit to cells repeated
# w times. It is not: it stops at another theta, 2.18 instead of 2.42, with a lower likelihood,
# and reports convergence. With method = "Nelder-Mead", which uses no gradient, it is right.
#
# Output seen:
#   repeated cells         theta 2.420  log-likelihood -2255.880
#   weights                theta 2.176  log-likelihood -2256.173
#   weights converged: TRUE
#   weights, Nelder-Mead   theta 2.420  log-likelihood -2255.880
#
# Source: print(pscl::zeroinfl), its inner function gradNegBin: the last line multiplies the
# scores of the coefficients by the weights, that of log(theta) (wres_theta) not.
# Date: 2026-11-30. Needs: Debian 12 with Rscript (r-base-core).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq -o APT::Sandbox::User=root r-cran-pscl=1.5.5-1+b1 r-cran-mass=7.3-58.2-1
for package in ./*.deb; do dpkg -x "$package" .; done
export R_LIBS="$folder/usr/lib/R/site-library:$folder/usr/lib/R/library"

Rscript - <<'R'
suppressMessages(library(pscl))
set.seed(1)
n <- 500
x <- rnorm(n)
y <- ifelse(runif(n) < 0.3, 0, rnbinom(n, mu = exp(1 + 0.5 * x), size = 2))
cells <- data.frame(x, y, w = sample(1:4, n, TRUE))
model <- y ~ x | 1
no_gradient <- zeroinfl.control(method = "Nelder-Mead", maxit = 20000, reltol = 1e-13)

repeated <- zeroinfl(model, cells[rep(seq_len(n), cells$w), ], dist = "negbin")
weighted <- zeroinfl(model, cells, weights = w, dist = "negbin")
searched <- zeroinfl(model, cells, weights = w, dist = "negbin", control = no_gradient)

show <- function(name, fit) {
  cat(sprintf("%-22s theta %.3f  log-likelihood %.3f", name, fit$theta, logLik(fit)), "\n")
}
show("repeated cells", repeated)
show("weights", weighted)
cat("weights converged:", weighted$converged, "\n")
show("weights, Nelder-Mead", searched)

if (abs(searched$theta - repeated$theta) > 0.01) stop("Nelder-Mead is not right either.")
if (!weighted$converged || logLik(weighted) > logLik(repeated) - 0.1) {
  stop("Differs: the weighted fit is at the maximum, or does not claim it.")
}
R
