# Packages in R, as worker.py for those in Python: Rscript peers.R TOOL FOLDER
#
# Answers in lines of JSON: first the version, or why there is none; to each line "fit" the seconds
# of one fit, of the processor and by the clock; when the input ends, the memory, the estimates being in the folder.

arguments <- commandArgs(trailingOnly = TRUE)
tool <- arguments[1]
folder <- arguments[2]

say <- function(...) {
  cat(sprintf(...), "\n", sep = "")
  flush(stdout())
}

memory <- function(name) { # in bytes, as JSON; see memory.py
  if (!file.exists("/proc/self/status")) return("null")
  line <- grep(paste0("^", name, ":"), readLines("/proc/self/status"), value = TRUE)
  sprintf("%.0f", 1024 * as.numeric(gsub("[^0-9]", "", line)))
}

if (!requireNamespace(tool, quietly = TRUE)) {
  say('{"missing": "no R package %s"}', tool)
  quit()
}

read <- function(name) {
  path <- file.path(dirname(folder), paste0(name, ".csv"))
  if (file.exists(path)) as.matrix(read.csv(path, header = FALSE))
}
Y <- Matrix::readMM(file.path(dirname(folder), "counts.mtx")) # cells x genes
X <- read("mean")
Z <- read("zero_inflation")
offset <- read("offset")

prepare <- list(
  glmGamPoi = function() {
    counts <- as.matrix(Matrix::t(Y)) # it refuses sparse ones
    from <- if (is.null(offset)) 0 else as.vector(offset)
    function() {
      fit <- glmGamPoi::glm_gp(
        counts, design = X, offset = from, size_factors = FALSE,
        overdispersion_shrinkage = FALSE, do_cox_reid_adjustment = FALSE
      )
      list(mean = t(fit$Beta), dispersion = -log(fit$overdispersions))
    }
  },
  glmmTMB = function() {
    counts <- as.matrix(Y)
    inflation <- if (is.null(Z)) ~0 else ~ 0 + Z
    function() {
      fits <- apply(counts, 2, function(y) {
        glmmTMB::glmmTMB(y ~ 0 + X, ziformula = inflation, family = glmmTMB::nbinom2)
      })
      part <- function(name) sapply(fits, function(fit) glmmTMB::fixef(fit)[[name]])
      list(
        mean = part("cond"), dispersion = part("disp"),
        zero_inflation = if (!is.null(Z)) part("zi"),
        converged = sapply(fits, function(fit) fit$fit$convergence == 0)
      )
    }
  },
  pscl = function() {
    counts <- as.matrix(Y)
    function() {
      fits <- apply(counts, 2, function(y) {
        pscl::zeroinfl(y ~ 0 + X | 0 + Z, dist = "negbin")
      })
      list(
        mean = sapply(fits, function(fit) fit$coefficients$count),
        dispersion = sapply(fits, function(fit) log(fit$theta)),
        zero_inflation = sapply(fits, function(fit) fit$coefficients$zero),
        converged = sapply(fits, function(fit) fit$converged)
      )
    }
  }
)

fit <- prepare[[tool]]()
say('{"version": "%s"}', as.character(packageVersion(tool)))
invisible(gc())
before <- memory("VmRSS")
if (file.exists("/proc/self/clear_refs")) cat("5", file = "/proc/self/clear_refs")
input <- file("stdin", "r")
while (length(readLines(input, n = 1)) > 0) {
  estimates <- NULL
  invisible(gc())
  used <- system.time(
    utils::capture.output(estimates <- suppressMessages(suppressWarnings(fit())))
  )
  say('{"seconds": %.3f, "clock": %.3f}', sum(used[1:2]), used[["elapsed"]])
}
for (name in names(estimates)) {
  values <- estimates[[name]]
  if (is.null(values)) next
  if (name == "dispersion") values <- matrix(values, nrow = 1)
  if (name == "converged") values <- as.integer(values)
  values[is.na(values)] <- NaN
  write.table(
    format(values, digits = 17), file.path(folder, paste0(name, ".csv")),
    sep = ",", row.names = FALSE, col.names = FALSE, quote = FALSE
  )
}
say('{"memory_before": %s, "memory_peak": %s}', before, memory("VmHWM"))
