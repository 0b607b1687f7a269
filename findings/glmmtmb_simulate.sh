#!/usr/bin/env bash
# glmmTMB 1.1.5 (Debian 12: r-cran-glmmtmb 1.1.5+dfsg-4), R 4.2.2.
#
# simulate() of a fit with (1 | donor) draws new donors each time: simulated donors are not like
# the donors that bear the same names in the data. lme4's argument re.form = NULL, which keeps
# the donors there, is accepted and changes nothing.
#
# Output seen (8 donors, 200 data sets each):
#   re.form not given: correlation of donors' log means with the observed 0.04 on average
#   re.form = NULL:    correlation of donors' log means with the observed 0.04 on average
#   same counts with and without re.form: TRUE
#
# Source: ?glmmTMB::simulate.glmmTMB, section Details; its arguments end in "...", which is where
# re.form goes.
# Date: 2026-11-30. Needs: Debian 12 with Rscript (r-base-core).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
without=(--no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances)
mapfile -t needed < <(apt-cache depends --recurse "${without[@]}" r-cran-glmmtmb |
  grep -E '^(r-cran|libnlopt0|libuv1)' | grep -v '^r-cran-glmmtmb$' | sort -u)
apt-get download -qq -o APT::Sandbox::User=root r-cran-glmmtmb=1.1.5+dfsg-4 "${needed[@]}"
for package in ./*.deb; do dpkg -x "$package" .; done
export R_LIBS="$folder/usr/lib/R/site-library:$folder/usr/lib/R/library"
LD_LIBRARY_PATH=$(echo "$folder"/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH

Rscript - <<'R'
suppressWarnings(suppressMessages(library(glmmTMB)))
set.seed(1)
cells <- data.frame(donor = factor(rep(1:8, each = 100)))
cells$y <- rnbinom(800, mu = exp(1 + rnorm(8))[cells$donor], size = 3)
fit <- glmmTMB(y ~ 1 + (1 | donor), family = nbinom2, data = cells)

log_means <- function(y) log(tapply(y + 1e-3, cells$donor, mean))
likeness <- function(simulated) mean(sapply(simulated, function(y) {
  cor(log_means(y), log_means(cells$y))
}))
plain <- simulate(fit, nsim = 200, seed = 1)
kept <- simulate(fit, nsim = 200, seed = 1, re.form = NULL)
text <- "correlation of donors' log means with the observed %.2f on average\n"
cat(sprintf(paste("re.form not given:", text), likeness(plain)))
cat(sprintf(paste("re.form = NULL:   ", text), likeness(kept)))
same <- all(unlist(plain) == unlist(kept))
cat("same counts with and without re.form:", same, "\n")

if (!same || likeness(kept) > 0.3) stop("Differs: re.form = NULL keeps the donors.")
R
