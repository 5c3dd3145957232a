"""The paper's figures and tables of one's own studies, the published numbers beside them."""
