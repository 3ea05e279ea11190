"""`embedtune init`: facts about data, model and machine, and the recipe that follows from them."""
