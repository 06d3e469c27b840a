"""The pruned encoder in terms of plain torch modules: what one layer computes, and the loop over the layers."""
