"""The filter language of search and list. Owned by the API helper; see store/conditions.py for its SQL."""
