#!/usr/bin/env bash
# MASS 7.3-58.2 (Debian 12: r-cran-mass 7.3-58.2-1), R 4.2.2.
#
# For a rare gene with large counts (zero in 980 cells, 1 to 155 in 20) glm.nb ends at the
# Poisson model, theta = 46012, though the maximum is at theta = 0.0036, 4282 units of
# log-likelihood above. fit$converged is TRUE; warnings say "iteration limit reached" and "NaNs
# produced". A better init.theta does not help, and more iterations end in an error.
#
# Output seen:
#   glm.nb: theta 46012.12, log-likelihood -4479.26, converged TRUE
#   glm.nb, init.theta 0.01: theta 46012.12, log-likelihood -4479.26
#   glm.nb, maxit 1000: missing value where TRUE/FALSE needed
#   maximum: theta 0.00359, log-likelihood -197.62
#
# Source: print(MASS::theta.ml): Newton steps on theta itself, whose negative values are made
# positive, from a moment estimate, with nothing that holds the likelihood from falling.
# Date: 2026-11-30. Needs: Debian 12 with Rscript (r-base-core).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq -o APT::Sandbox::User=root r-cran-mass=7.3-58.2-1
dpkg -x ./*.deb .
export R_LIBS="$folder/usr/lib/R/library"

Rscript - <<'R'
suppressMessages(library(MASS))
positive <- c(1, 1, 2, 3, 5, 8, 12, 17, 23, 30, 38, 47, 57, 68, 80, 93, 107, 122, 138, 155)
y <- c(rep(0, 980), positive)
fit <- suppressWarnings(glm.nb(y ~ 1))
started <- suppressWarnings(glm.nb(y ~ 1, init.theta = 0.01))
patient <- try(suppressWarnings(glm.nb(y ~ 1, control = glm.control(maxit = 1000))), TRUE)
log_likelihood <- function(log_theta) {
  sum(dnbinom(y, mu = mean(y), size = exp(log_theta), log = TRUE))
}
best <- optimize(log_likelihood, c(-15, 10), maximum = TRUE)

cat(sprintf("glm.nb: theta %.2f, log-likelihood %.2f, converged ", fit$theta, logLik(fit)))
cat(fit$converged, "\n")
cat(sprintf("glm.nb, init.theta 0.01: theta %.2f, ", started$theta))
cat(sprintf("log-likelihood %.2f\n", logLik(started)))
why <- attr(patient, "condition")
cat("glm.nb, maxit 1000:", if (is.null(why)) patient$theta else conditionMessage(why), "\n")
cat(sprintf("maximum: theta %.5f, log-likelihood %.2f\n", exp(best$maximum), best$objective))

if (!fit$converged || logLik(fit) > best$objective - 1000) {
  stop("Differs: glm.nb is near the maximum, or does not call itself converged.")
}
if (logLik(started) > best$objective - 1000) stop("Differs: init.theta helps.")
R
